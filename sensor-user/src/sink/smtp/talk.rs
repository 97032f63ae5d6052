//! The conversation with a mail server (RFC 5321): by TLS from the start or after STARTTLS, with a login where there is
//! one, then mails.
//!
//! What a server says is hostile until shown otherwise: a reply has at most [`MAX_LINES`] lines of [`MAX_LINE`] bytes,
//! nothing that it said before TLS is believed after it, and a login is never shown to anybody without TLS unless the
//! server is on this host or the configuration insists.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::letter::Letter;
use super::{Login, Security, Settings};
use crate::sink::Words;
use crate::sink::wire::{Broken, Wire};

/// Longest line of a reply, in bytes: RFC 5321 section 4.5.3.1.5 allows 512, some servers say more.
const MAX_LINE: usize = 2048;

/// Most lines of a reply: the longest known answer to EHLO has some twenty.
const MAX_LINES: usize = 64;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    const fn is_fine(&self) -> bool {
        self.code / 100 == 2
    }

    const fn is_final(&self) -> bool {
        self.code / 100 == 5
    }

    /// `550 5.1.1 no such user`, printable and bounded.
    fn words(&self) -> Words {
        Words::new(&format!("{} {}", self.code, self.lines.join(" ")))
    }
}

/// Why a conversation ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The connection.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The server does not go on.
    #[error("{step} was answered {reply}")]
    Step {
        /// What was said to it.
        step: &'static str,
        /// What it said.
        reply: Words,
    },
    /// The server does not offer what is needed.
    #[error("the server does not offer {0}")]
    Lacks(&'static str),
}

/// What became of a mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mailed {
    /// The server answers for it from now on.
    Taken {
        /// What it said.
        answer: Words,
        /// Who does not get it, with what was said about that.
        but: Option<Words>,
    },
    /// It will never take it.
    Refused(Words),
    /// Not now.
    Later(Words),
}

/// A conversation.
pub(super) struct Talk {
    wire: Wire,
    /// What the server offers, in capitals, a line each.
    offers: Vec<String>,
}

impl Talk {
    /// Connects, and goes on until mails can be sent.
    pub(super) async fn begin(settings: &Settings, hello: &str) -> Result<Self, Trouble> {
        let mut wire = Wire::connect(&settings.server).await?;
        if settings.security == Security::Tls {
            wire = wire.encrypt(&settings.tls).await?;
        }
        let mut talk = Self { wire, offers: Vec::new() };
        let greeting = talk.reply().await?;
        fine("the connection", &greeting)?;
        talk.hello(hello).await?;
        if settings.security == Security::StartTls {
            if !talk.offers("STARTTLS") {
                return Err(Trouble::Lacks("STARTTLS"));
            }
            let reply = talk.say("STARTTLS").await?;
            fine("STARTTLS", &reply)?;
            // Fails if anything was said behind the reply.
            talk.wire = talk.wire.encrypt(&settings.tls).await?;
            talk.hello(hello).await?;
        }
        if let Some(login) = &settings.login {
            if !talk.wire.is_encrypted() && !settings.may_be_plain() {
                return Err(Trouble::Lacks("TLS, without which nobody logs in"));
            }
            talk.log_in(login).await?;
        }
        Ok(talk)
    }

    async fn hello(&mut self, hello: &str) -> Result<(), Trouble> {
        let reply = self.say(&format!("EHLO {hello}")).await?;
        fine("EHLO", &reply)?;
        self.offers = reply.lines.iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        Ok(())
    }

    fn offers(&self, what: &str) -> bool {
        self.offers.iter().any(|offer| offer.split(' ').next() == Some(what))
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Trouble> {
        // Old servers write an equals sign.
        let ways =
            self.offers.iter().filter_map(|offer| offer.strip_prefix("AUTH")?.strip_prefix([' ', '=']));
        let ways: Vec<&str> = ways.flat_map(|ways| ways.split(' ')).collect();
        let password = &login.password.0;
        let coded = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
        let reply = if ways.contains(&"PLAIN") {
            let both = [&b"\0"[..], login.user.as_bytes(), b"\0", password].concat();
            let both = coded(&Zeroizing::new(both));
            self.say(&Zeroizing::new(format!("AUTH PLAIN {}", &*both))).await?
        } else if ways.contains(&"LOGIN") {
            let mut reply = self.say("AUTH LOGIN").await?;
            for answer in [coded(login.user.as_bytes()), coded(password)] {
                if reply.code != 334 {
                    break;
                }
                reply = self.say(&answer).await?;
            }
            reply
        } else {
            return Err(Trouble::Lacks("AUTH PLAIN or AUTH LOGIN"));
        };
        fine("the login", &reply)
    }

    /// Sends one mail. Whoever of the recipients is refused does not keep it from the others.
    pub(super) async fn mail(
        &mut self,
        from: &str,
        to: &[String],
        letter: &Letter,
    ) -> Result<Mailed, Trouble> {
        let reply = self.say(&format!("MAIL FROM:<{from}>")).await?;
        // A sender that is not allowed is a matter of the configuration, not of this mail.
        fine("MAIL FROM", &reply)?;
        let (mut taken, mut wrong, mut is_final) = (0, Vec::new(), true);
        for recipient in to {
            let reply = self.say(&format!("RCPT TO:<{recipient}>")).await?;
            if reply.is_fine() {
                taken += 1;
            } else {
                is_final &= reply.is_final();
                wrong.push(format!("{recipient}: {}", reply.words()));
            }
        }
        let wrong = (!wrong.is_empty()).then(|| Words::new(&wrong.join("; ")));
        if taken == 0 {
            let wrong = wrong.unwrap_or_default();
            fine("RSET", &self.say("RSET").await?)?;
            return Ok(if is_final { Mailed::Refused(wrong) } else { Mailed::Later(wrong) });
        }
        let reply = self.say("DATA").await?;
        let reply = if reply.code == 354 {
            self.wire.send(&stuffed(&letter.bytes)).await?;
            self.reply().await?
        } else {
            reply
        };
        Ok(if reply.is_fine() {
            Mailed::Taken { answer: reply.words(), but: wrong }
        } else if reply.is_final() {
            Mailed::Refused(reply.words())
        } else {
            Mailed::Later(reply.words())
        })
    }

    /// Ends it. Nobody waits for the answer: the mails are with the server already.
    pub(super) async fn end(mut self) {
        let _ = self.wire.send(b"QUIT\r\n").await;
    }

    async fn say(&mut self, words: &str) -> Result<Reply, Trouble> {
        let line = Zeroizing::new(format!("{words}\r\n"));
        self.wire.send(line.as_bytes()).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        let nonsense = || Trouble::Broken(Broken::Nonsense("SMTP"));
        let mut reply = Reply { code: 0, lines: Vec::new() };
        loop {
            let line = self.wire.line(MAX_LINE).await?;
            let (code, rest) = line.split_at_checked(3).ok_or_else(nonsense)?;
            let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
            let code = code.filter(|code| (200..600).contains(code)).ok_or_else(nonsense)?;
            if !reply.lines.is_empty() && code != reply.code {
                return Err(nonsense());
            }
            reply.code = code;
            let text = rest.get(1..).unwrap_or_default();
            reply.lines.push(String::from_utf8_lossy(text).into_owned());
            match rest.first() {
                None | Some(b' ') => return Ok(reply),
                Some(b'-') if reply.lines.len() < MAX_LINES => {}
                Some(_) => return Err(nonsense()),
            }
        }
    }
}

fn fine(step: &'static str, reply: &Reply) -> Result<(), Trouble> {
    if reply.is_fine() { Ok(()) } else { Err(Trouble::Step { step, reply: reply.words() }) }
}

/// The mail with its end, each line ended by CR LF alone, and a dot more where one begins a line (section 4.5.2).
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + mail.len() / 64 + 8);
    let mail = mail.strip_suffix(b"\n").unwrap_or(mail);
    for line in mail.split(|byte| *byte == b'\n') {
        let mut bytes = line.iter().copied().filter(|byte| *byte != b'\r').peekable();
        if bytes.peek() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend(bytes);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_do_not_end_a_mail() {
        assert_eq!(stuffed(b"a\r\n.\r\nb\r\n"), b"a\r\n..\r\nb\r\n.\r\n");
        assert_eq!(stuffed(b"a\n.b"), b"a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(b".\r\r\n"), b"..\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn no_mail_ends_before_its_end(mail in "[.\r\n a]{0,60}") {
            let out = stuffed(mail.as_bytes());
            let text = std::str::from_utf8(&out).unwrap();
            let end = format!("\r\n{text}").find("\r\n.\r\n").unwrap();
            prop_assert_eq!(end + 5, text.len() + 2, "{:?}", text);
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        }
    }
}
