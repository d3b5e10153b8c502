//! What it takes to read ten thousand keys each 90 s over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{House, row, world};

const PROJECTS: usize = 10_000;

/// Two intervals of the default `sweep.drift_every`.
const MEASURED: Duration = Duration::from_secs(180);

/// The file of the authority that [`tls`] writes.
pub(super) const AUTHORITY: &str = "authority.pem";

/// Serves what `target` answers over TLS; returns the base URL.
pub(super) async fn tls(target: SocketAddr, folder: &Path) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join(AUTHORITY), own.cert.pem()).unwrap();
    let chain = vec![CertificateDer::from(own.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut front) = acceptor.accept(stream).await else { return };
                let Ok(mut back) = tokio::net::TcpStream::connect(target).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    format!("https://localhost:{port}")
}

/// The daemon's processor time, as Linux counts it in hundredths of a second.
fn busy(house: &House) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", house.daemon.0.id())).unwrap();
    // The name of the program, which may contain spaces, ends with the parenthesis.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// What the daemon has written to disk, in MiB.
#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
fn written(house: &House) -> f64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", house.daemon.0.id())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse::<u64>().unwrap() as f64 / 1024.0 / 1024.0
}

/// Two intervals of a calm fleet, after the first reading of each key.
pub(super) async fn figures() {
    let house = House::start_over_tls(PROJECTS, world(PROJECTS)).await;
    let looks = || house.sim.log().into_iter().filter(|it| it.operation == "get_ear").count();
    while looks() < PROJECTS {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The first look of a project may be right before its offset in the interval.
    tokio::time::sleep(Duration::from_secs(90)).await;
    let (asked, used, wrote, started) = (looks(), busy(&house), written(&house), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let took = started.elapsed().as_secs_f64();
    let share = busy(&house).saturating_sub(used).as_secs_f64() / took * 100.0;
    let (made, wrote) = (looks() - asked, (written(&house) - wrote) / took * 60.0);
    row("10,000 projects at 90 s over TLS: processor", &format!("{share:.0} %"), "of one core");
    row("the same: resident memory", &format!("{:.1} MiB", house.resident()), "");
    row("the same: readings of keys in 180 s", &made.to_string(), ">= 20,000");
    row("the same: written to disk in a minute", &format!("{wrote:.1} MiB"), "");
    house.end().await;
}
