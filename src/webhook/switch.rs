//! A dead-man's switch: an address that is requested while all is well. It is a secret and stands in no message.

use std::fmt;
use std::time::Duration;

use reqwest::Client;
use url::Url;

use crate::net::cause::root_cause;
use crate::net::client::{self, BuildError};

/// The limit of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// A dead-man's switch.
pub struct Switch {
    url: Url,
    client: Client,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switch")
    }
}

impl Switch {
    /// A switch at `url`, which must be http or https.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(url: Url) -> Result<Self, BuildError> {
        let client = client::build(client::builder(Some(&url), LIMIT).timeout(LIMIT))?;
        Ok(Self { url, client })
    }

    /// Requests the switch once.
    ///
    /// # Errors
    /// The failure, and the setting to change.
    pub async fn request(&self) -> Result<(), String> {
        match self.client.get(self.url.clone()).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) if answer.status().is_redirection() => Err(format!(
                "the switch redirects ({}), which is not followed; put the address that it redirects to into heartbeat.url",
                answer.status().as_u16()
            )),
            Ok(answer) => Err(format!(
                "the switch answered {}; check heartbeat.url with its provider",
                answer.status().as_u16()
            )),
            Err(error) if error.is_timeout() => {
                Err(format!("the switch did not answer within {} s", LIMIT.as_secs()))
            }
            Err(error) => Err(format!("the switch cannot be reached: {}", root_cause(&error.without_url()))),
        }
    }
}
