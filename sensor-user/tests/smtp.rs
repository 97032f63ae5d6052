//! E-mail through a real Postfix: STARTTLS, TLS from the start and in the clear, with a login, into mail directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod receivers;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use receivers::{Server, authority, deliver, free_port, here, node, program, run, stranger, told, wait_for};
use sensor_user::detect::Severity;
use sensor_user::sink::client::TlsSettings;
use sensor_user::sink::smtp::{Login, Security, Settings, open};
use sensor_user::sink::{Outcome, Sink};
use sensor_user::token::settings::Secret;

const NOBODY: u32 = 65_534;

struct Postfix {
    dir: tempfile::TempDir,
    trusted: TlsSettings,
    starttls: u16,
    tls: u16,
    plain: u16,
    _server: Server,
}

impl Postfix {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        let trusted = authority(at);
        let master = program(&["master"], "postfix");
        let [starttls, tls, plain] = [free_port(), free_port(), free_port()];
        for name in ["queue", "data", "box", "sasl"] {
            fs::create_dir(at.join(name)).unwrap();
        }
        fs::write(at.join("main.cf"), main_cf(at, master.parent().unwrap())).unwrap();
        fs::write(at.join("master.cf"), master_cf(starttls, tls, plain)).unwrap();
        let sasl = format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {}/sasl/db\n",
            at.display()
        );
        fs::write(at.join("sasl/smtpd.conf"), sasl).unwrap();
        let user = postfix_user();
        chown(at.join("data"), Some(user), None).unwrap();
        chown(at.join("box"), Some(NOBODY), None).unwrap();
        add_user(at);
        chown(at.join("sasl/db"), Some(user), None).unwrap();
        let dir_text = at.to_str().unwrap();
        run(&program(&["postfix"], "postfix"), &["-c", dir_text, "check"]);
        let server = Server::start(Command::new(master).args(["-c", dir_text, "-d"]), &at.join("log"));
        for port in [starttls, tls, plain] {
            wait_for("port of Postfix", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        }
        Self { trusted, starttls, tls, plain, _server: server, dir }
    }

    fn settings(&self, port: u16, security: Security) -> Settings {
        let password = Secret(zeroize::Zeroizing::new(b"hunter2 \xc3\xa9".to_vec()));
        let login = (security != Security::None).then(|| Login { user: "sensor".into(), password });
        Settings {
            server: here(port),
            security,
            insecure: false,
            tls: self.trusted.clone(),
            login,
            from: "Tokenscope <sensor@shop.example>".parse().unwrap(),
            to: vec!["a@shop.example".parse().unwrap()],
            cc: vec!["B <b@shop.example>".parse().unwrap()],
            digest: Some(Duration::from_mins(1)),
            digest_events: 50,
        }
    }

    /// The mails of somebody, once there are so many.
    fn mails(&self, who: &str, least: usize) -> Vec<String> {
        let dir = self.dir.path().join("box").join(who).join("new");
        let mut mails = wait_for("mail", || {
            let all: Vec<_> = fs::read_dir(&dir).ok()?.map(|entry| entry.unwrap().path()).collect();
            (all.len() >= least)
                .then(|| all.iter().map(|mail| fs::read_to_string(mail).unwrap()).collect::<Vec<_>>())
        });
        mails.sort();
        mails
    }
}

fn main_cf(at: &Path, daemons: &Path) -> String {
    let (dir, daemons) = (at.display(), daemons.display());
    format!(
        "compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\n\
         command_directory = /usr/sbin\ndaemon_directory = {daemons}\nmaillog_file = {dir}/mail.log\n\
         maillog_file_prefixes = {dir}\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = localhost\n\
         mydestination =\nalias_maps =\nalias_database =\nlocal_recipient_maps =\n\
         virtual_mailbox_domains = shop.example\nvirtual_mailbox_base = {dir}/box\n\
         virtual_mailbox_maps = inline:{{ {{a@shop.example = a/}} {{b@shop.example = b/}} }}\n\
         virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
         smtpd_tls_cert_file = {dir}/cert.pem\nsmtpd_tls_key_file = {dir}/key.pem\n\
         smtpd_sasl_auth_enable = yes\nsmtpd_sasl_path = smtpd\ncyrus_sasl_config_path = {dir}/sasl\n\
         smtpd_client_restrictions = permit_sasl_authenticated, reject\n\
         smtpd_recipient_restrictions = reject_unauth_destination\n\
         smtpd_relay_restrictions = reject_unauth_destination\n"
    )
}

fn master_cf(starttls: u16, tls: u16, plain: u16) -> String {
    format!(
        "127.0.0.1:{starttls} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_auth_only=yes\n\
         127.0.0.1:{tls} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
         127.0.0.1:{plain} inet n - n - - smtpd -o smtpd_client_restrictions= -o smtpd_sasl_auth_enable=no\n\
         cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nerror unix - - n - - error\n\
         virtual unix - n n - - virtual\nanvil unix - - n - 1 anvil\npostlog unix-dgram n - n - 1 postlogd\n"
    )
}

fn postfix_user() -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postfix:"));
    line.expect("postfix is installed").split(':').nth(2).unwrap().parse().unwrap()
}

fn add_user(at: &Path) {
    let mut command = Command::new(program(&["saslpasswd2"], "sasl2-bin libsasl2-modules"));
    command
        .args(["-p", "-c", "-u", "localhost", "-f"])
        .arg(at.join("sasl/db"))
        .arg("sensor")
        .stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hunter2 \xc3\xa9").unwrap();
    assert!(child.wait().unwrap().success());
}

fn sink(settings: &Settings) -> Box<dyn Sink> {
    open(settings, &node()).unwrap()
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {mail}")).split_once(": ").unwrap().1
}

#[tokio::test(flavor = "current_thread")]
async fn mails_arrive_encrypted_and_logged_in() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: Postfix can only be started by root");
        return;
    }
    let postfix = Postfix::start();
    let ways = [
        (postfix.starttls, Security::StartTls, "ESMTPSA"),
        (postfix.tls, Security::Tls, "ESMTPSA"),
        (postfix.plain, Security::None, "ESMTP"),
    ];
    for (number, (port, security, protocol)) in (1..).zip(ways) {
        let mut sink = sink(&postfix.settings(port, security));
        let events = [
            told(number * 10, Severity::Critical),
            told(number * 10 + 1, Severity::Low),
            told(number * 10 + 2, Severity::Medium),
        ];
        let outcome = deliver(&mut sink, &events).await;
        assert!(
            matches!(&outcome, Outcome::Done { refused, .. } if refused.is_empty()),
            "{security:?}: {outcome:?}"
        );
        let so_far = usize::try_from(number).unwrap() * 2;
        for who in ["a", "b"] {
            let mails = postfix.mails(who, so_far);
            assert_eq!(mails.len(), so_far);
            let newest = |subject: &str| {
                let mine = format!("with {protocol} ");
                let fits =
                    |mail: &&String| mail.contains(&mine) && header(mail, "Subject").starts_with(subject);
                mails.iter().filter(fits).count()
            };
            assert!(newest("[CRITICAL] alg-none on test/orders (node-1)") >= 1, "{mails:?}");
            assert!(newest("[digest] 2 events, worst medium (node-1)") >= 1, "{mails:?}");
        }
    }
    let all = postfix.mails("a", 6);
    assert!(all.iter().all(|mail| header(mail, "Auto-Submitted") == "auto-generated"));
    let mut ids: Vec<&str> = all.iter().map(|mail| header(mail, "Message-ID")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6, "each its own");

    refusals(&postfix).await;
}

/// What the server does not want, and what we do not.
async fn refusals(postfix: &Postfix) {
    let high = [told(90, Severity::High)];
    let settings = postfix.settings(postfix.starttls, Security::StartTls);
    let wrong = Settings { cc: vec!["d@shop.example".parse().unwrap()], ..settings.clone() };
    let outcome = deliver(&mut sink(&wrong), &high).await;
    let Outcome::Done { refused, .. } = outcome else { panic!("{outcome:?}") };
    let reason = refused[0].reason.as_str();
    assert!(reason.starts_with("d@shop.example: 550 5.1.1"), "{reason}");
    assert_eq!(postfix.mails("a", 7).len(), 7, "the others have it");

    let password = Secret(zeroize::Zeroizing::new(b"hunter3".to_vec()));
    let stranger_in = Settings { login: Some(Login { user: "sensor".into(), password }), ..settings.clone() };
    let nobody = Settings { login: None, ..settings.clone() };
    let deceived = Settings { tls: stranger(postfix.dir.path()), ..settings.clone() };
    for (settings, expected) in
        [(stranger_in, "the login was answered 535"), (nobody, "RCPT"), (deceived, "TLS with localhost")]
    {
        let outcome = deliver(&mut sink(&settings), &high).await;
        match outcome {
            Outcome::Later { reason, .. } => {
                assert!(reason.as_str().contains(expected), "{reason}");
                assert!(!reason.as_str().contains("hunter3"));
            }
            // Postfix tells strangers at the recipient.
            Outcome::Done { refused, .. } => {
                assert!(expected == "RCPT" && refused[0].reason.as_str().contains("554"), "{refused:?}");
            }
        }
    }
    assert_eq!(postfix.mails("a", 7).len(), 7);
}
