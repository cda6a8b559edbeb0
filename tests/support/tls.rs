//! Certificates made for a test, and a Postgres that speaks TLS with them on a loopback address.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::TestDatabase;

/// An authority of its own for each test, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key, both in PEM.
pub struct Certificate {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, dir }
    }

    /// The file that `sslrootcert` names.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a server of that name.
    pub fn server(&self, name: &str) -> Certificate {
        self.issue(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// One that was good for a while.
    pub fn expired(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(&params)
    }

    /// For a client of that role; returns the files that `sslcert` and `sslkey` name.
    pub fn client(&self, role: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, role);
        let made = self.issue(&params);
        let [certificate, key] = ["crt", "key"].map(|kind| self.dir.path().join(format!("{role}.{kind}")));
        std::fs::write(&certificate, made.certificate).unwrap();
        std::fs::write(&key, made.key).unwrap();
        (certificate, key)
    }

    fn issue(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A loopback address where port 5432 is nobody's, so that servers of several tests do not meet. None where the
/// machine has 127.0.0.1 only (macOS): the test says that it skips.
pub fn loopback() -> Option<Ipv4Addr> {
    let found = (0..20).find_map(|_| {
        let address = Ipv4Addr::new(127, fastrand::u8(1..255), fastrand::u8(..), fastrand::u8(1..255));
        TcpListener::bind((address, 5432)).is_ok().then_some(address)
    });
    if found.is_none() {
        println!("SKIPPED: no loopback address of its own for a server");
    }
    found
}

/// A server that also listens at a loopback address, where it refuses everybody until `hba` is called.
pub async fn start(address: Ipv4Addr) -> TestDatabase {
    TestDatabase::start_alone(&[("listen_addresses", &address.to_string())]).await
}

/// Makes the server take a certificate; its own account writes the files, as it must own them.
pub async fn present(superuser: &Client, certificate: &Certificate, authority: &Authority) {
    write_file(superuser, "server.crt", &certificate.certificate).await;
    write_file(superuser, "server.key", &certificate.key).await;
    write_file(superuser, "ca.crt", &authority.pem()).await;
    for sql in [
        "ALTER SYSTEM SET ssl = on",
        "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'",
        "SELECT pg_reload_conf()",
    ] {
        superuser.batch_execute(sql).await.unwrap();
    }
    // New sessions read the files when the postmaster has.
    super::within(std::time::Duration::from_secs(5), "ssl is on", async || {
        superuser.query_one("SHOW ssl", &[]).await.unwrap().get::<_, &str>(0) == "on"
    })
    .await;
}

/// Who may come in by which way. Local sessions keep their trust.
pub async fn hba(superuser: &Client, lines: &str) {
    write_file(superuser, "pg_hba.conf", &format!("local all uptally trust\n{lines}")).await;
    superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

async fn write_file(superuser: &Client, name: &str, text: &str) {
    let text = text.trim_end();
    let sql = format!(
        "COPY (SELECT unnest(string_to_array($text${text}$text$, E'\\n'))) TO PROGRAM 'umask 077; cat > {name}.new; mv {name}.new {name}'"
    );
    superuser.batch_execute(&sql).await.unwrap();
}
