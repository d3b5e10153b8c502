//! `login` and `logout`: save a server with its token under a name, after the server took the token, and forget it.

use std::io::{BufRead, IsTerminal};

use clap::Args;
use url::Url;

use super::Global;
use super::client::{Client, token_in};
use super::failure::{Exit, Failure};
use super::printer::Printer;
use super::servers::{Servers, TokenSource, address, printed};
use crate::domain::address::is_loopback;

/// The longest name of a server.
const LONGEST_NAME: usize = 64;

#[derive(Debug, Args)]
pub(super) struct Login {
    /// The server's address, such as `https://keywheel.example.com`
    #[arg(required_unless_present = "list")]
    url: Option<String>,
    /// The name for --server; otherwise the host of the address, with its port
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    name: Option<String>,
    /// Command of the shell that prints the token in its first line. It is saved in the token's place, and run each time
    #[arg(long, value_name = "COMMAND", conflicts_with = "list")]
    token_command: Option<String>,
    /// List the saved servers; tokens are not shown
    #[arg(long, conflicts_with = "url")]
    list: bool,
}

#[derive(Debug, Args)]
pub(super) struct Logout {
    /// Name of the saved server
    name: String,
}

pub(super) async fn login(args: Login, global: &Global, printer: &mut Printer) -> Result<Exit, Failure> {
    let of_env = std::env::var("KEYWHEEL_SERVER").ok().filter(|it| !it.is_empty());
    if global.server.is_some() && global.server != of_env {
        return Err(Failure::Usage("login takes the server as its argument: keywheel login URL".to_owned()));
    }
    let servers = Servers::load()?;
    let Some(url) = args.url else { return list(&servers, printer) };
    let url = checked(&url)?;
    let name = named(args.name, &url)?;
    let file = global.token_file_flag();
    let (token, source) = match (args.token_command, file) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(
                "--token-file and --token-command both name the token; give one of them".to_owned(),
            ));
        }
        (Some(command), None) => (printed(&name, &command, printer.errors())?, TokenSource::Command(command)),
        (None, Some(file)) => {
            let token = token_in(file, printer)?;
            (token.clone(), TokenSource::Token(token))
        }
        (None, None) => {
            let token = asked(&url)?;
            (token.clone(), TokenSource::Token(token))
        }
    };
    // Any role may read, and one project is the cheapest answer that needs the token.
    let client = Client::with_token(url.as_str(), &token, printer)?;
    if let Err(failure) = client.get("/projects", &[("limit", "1")]).await {
        let refused = matches!(&failure, Failure::Problem(problem) if matches!(problem.status, 401 | 403));
        printer.note(if refused {
            "nothing was saved, because the server did not take the token"
        } else {
            "nothing was saved, because the server could not be asked whether it takes the token"
        });
        return Err(failure);
    }
    let before = servers.find(&name).ok().flatten().map(|(_, it)| it.url.clone());
    let file = servers.save(&name, &url, source)?;
    let url = url.as_str().trim_end_matches('/');
    let instead =
        before.filter(|it| it != url).map(|it| format!(", in the place of {it}")).unwrap_or_default();
    printer.note(&format!("{url} is saved as {name} in {}{instead}", file.display()));
    printer.note(&format!(
        "use it with --server {name}, or for all commands with export KEYWHEEL_SERVER={name}"
    ));
    Ok(Exit::Done)
}

pub(super) fn logout(args: &Logout, printer: &mut Printer) -> Result<Exit, Failure> {
    let url = Servers::load()?.forget(&args.name)?;
    printer.note(&format!(
        "{} ({url}) is forgotten here; the token counts until `keywheel token revoke` on the server",
        args.name
    ));
    Ok(Exit::Done)
}

fn list(servers: &Servers, printer: &mut Printer) -> Result<Exit, Failure> {
    let shown = servers.shown();
    if printer.is_json() {
        printer.json(&serde_json::json!({ "items": shown }))?;
    } else if shown.is_empty() {
        printer.note("no server is saved; `keywheel login URL` saves one");
    } else {
        printer.list(&shown, &["name", "url", "token"])?;
    }
    Ok(Exit::Done)
}

/// The address, if a token may be sent there and it names nothing but the server.
fn checked(text: &str) -> Result<Url, Failure> {
    let refuse = |why: &str| Err(Failure::Usage(why.to_owned()));
    let Some(url) = address(text) else {
        return refuse("login takes an address such as https://keywheel.example.com");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "the address holds a user or a password, which a Keywheel server does not take; leave them out",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse(
            "the address ends in ? or #; give only the server, such as https://keywheel.example.com",
        );
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return refuse(
            "over http:// the token would cross the network readable with each command; use https:// ([server.tls] on the server, or a \
             proxy in front of it)",
        );
    }
    Ok(url)
}

fn named(given: Option<String>, url: &Url) -> Result<String, Failure> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let name = given.unwrap_or_else(|| match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    });
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) {
        return Err(Failure::Usage(format!(
            "the name {name:?} cannot be used: it takes 1 to {LONGEST_NAME} letters, digits, '-', '_', '.' or ':'"
        )));
    }
    Ok(name)
}

/// The token from the terminal, where it is not shown, or from standard input.
fn asked(url: &Url) -> Result<String, Failure> {
    let unread =
        |error: std::io::Error| Failure::Failed(anyhow::anyhow!("the token cannot be read: {error}"));
    let token = if std::io::stdin().is_terminal() {
        match rpassword::prompt_password(format!("Token for {url} (it is not shown): ")) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => String::new(),
            asked => asked.map_err(unread)?,
        }
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
        line
    };
    let token = token.trim_start_matches('\u{feff}').trim().to_owned();
    if token.is_empty() {
        return Err(Failure::Usage(
            "no token was given: pipe it in, or name --token-file FILE or --token-command COMMAND; `keywheel token create` on the \
             server makes one"
                .to_owned(),
        ));
    }
    Ok(token)
}
