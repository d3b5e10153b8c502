//! Bodies of replies, read up to a limit that is counted after decompression.

use reqwest::Response;

/// A body that was not read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than the limit.
    TooLong,
    /// The connection broke, a timeout passed, or the body cannot be decoded. Without the URL.
    Broken(reqwest::Error),
}

/// Reads the whole body, unless it is longer than `limit` bytes.
///
/// # Errors
/// The body is too long or the connection broke.
pub async fn read(response: &mut Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    match fill(response, limit, &mut body).await {
        Ok(true) => Ok(body),
        Ok(false) => Err(BodyError::TooLong),
        Err(error) => Err(BodyError::Broken(error)),
    }
}

/// Reads at most `limit` bytes into `body` and returns whether the body ended there. After an error,
/// `body` holds the part before it.
///
/// # Errors
/// The connection broke, a timeout passed, or the body cannot be decoded.
pub async fn fill(response: &mut Response, limit: usize, body: &mut Vec<u8>) -> Result<bool, reqwest::Error> {
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        let room = limit - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &'static str) -> Response {
        axum::http::Response::new(text).into()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_not_beyond() {
        assert_eq!(read(&mut reply("12345"), 5).await.unwrap(), b"12345");
        assert!(matches!(read(&mut reply("123456"), 5).await, Err(BodyError::TooLong)));
        let mut start = Vec::new();
        assert!(!fill(&mut reply("123456"), 5, &mut start).await.unwrap());
        assert_eq!(start, b"12345");
    }
}
