//! `top` in a terminal of its own, and as text.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::commands::tokenscope;
use crate::sensor::{Sensor, until};

/// A terminal with `top` in it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    child: Child,
    /// Everything that was written to it.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(sensor: &Sensor, more: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = tokenscope(&["top", "-d", "0.2"]);
        command.args(more).arg("--socket").arg(sensor.socket()).env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(master);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, all) = (master.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = reader.read(&mut piece) {
                all.lock().unwrap().extend_from_slice(&piece[..size]);
            }
        });
        Self { master, slave, child, written }
    }

    /// What was written so far, without colours and movements.
    fn text(&self) -> String {
        let written = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        let mut text = String::new();
        let mut rest = written.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            text.push_str(before);
            let end = after
                .char_indices()
                .skip(1)
                .find(|(_, c)| c.is_ascii_alphabetic())
                .map_or(after.len(), |(at, _)| at + 1);
            rest = &after[end..];
        }
        text.push_str(rest);
        text
    }

    /// Waits until these words are shown. Only what changes is written, so the size changes again and again: then
    /// everything is.
    fn shows(&self, words: &str) {
        let mut looks = 0_u16;
        until(&format!("{words:?} is shown"), || {
            looks += 1;
            if looks.is_multiple_of(40) {
                self.resize(80 + looks / 40 % 2, 24);
            }
            self.text().contains(words)
        });
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.slave, size).unwrap();
        kill_process(Pid::from_child(&self.child), Signal::WINCH).unwrap();
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Presses `q` until it ends. crossterm lets keys that come together with a change of size lie until the next key.
    fn quit(&mut self) {
        let mut looks = 0_u16;
        until("it ends", || {
            if looks.is_multiple_of(200) {
                self.press("q");
            }
            looks += 1;
            self.child.try_wait().unwrap().is_some()
        });
    }

    /// Waits for its end: its status, and whether the terminal is as it was.
    fn end(mut self, before: &rustix::termios::Termios) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        until("the screen is given back", || {
            String::from_utf8_lossy(&self.written.lock().unwrap()).contains("\u{1b}[?1049l")
        });
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
        status.unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_shows_what_there_is_and_what_comes_and_gives_the_terminal_back() {
    let sensor = Sensor::start();
    sensor.append(3);
    let mut terminal = Terminal::start(&sensor, &[]);
    let before = {
        let fresh = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        tcgetattr(&fresh).unwrap()
    };
    terminal.shows("node-1");
    terminal.shows("rule-3");
    terminal.shows("siem");
    sensor.append(1);
    terminal.shows("rule-4");
    terminal.press("p");
    terminal.shows("HELD");
    terminal.press("p/zebra");
    terminal.shows("zebra");
    terminal.resize(120, 40);
    terminal.press("\r");
    terminal.quit();
    assert_eq!(terminal.end(&before), Some(0));
}

#[test]
fn a_signal_gives_the_terminal_back_too() {
    let sensor = Sensor::start();
    let terminal = Terminal::start(&sensor, &["--color", "never"]);
    let before = {
        let fresh = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        tcgetattr(&fresh).unwrap()
    };
    terminal.shows("node-1");
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).unwrap();
    assert_eq!(terminal.end(&before), Some(0));
}

#[test]
fn it_says_that_the_sensor_is_gone_and_goes_on_when_it_is_back() {
    let mut sensor = Sensor::start();
    let mut terminal = Terminal::start(&sensor, &[]);
    terminal.shows("node-1");
    sensor.stop();
    terminal.shows("sensor");
    sensor.append(1);
    sensor.start_again();
    terminal.shows("rule-1");
    terminal.quit();
}

#[test]
fn one_frame_is_text_for_scripts() {
    let sensor = Sensor::start();
    sensor.append(3);
    let run = |arguments: &[&str]| {
        let mut command = tokenscope(arguments);
        let output = command.arg("--socket").arg(sensor.socket()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, shown, _) = run(&["top", "--once", "-d", "0.2"]);
    assert_eq!(status, Some(0));
    assert!(shown.contains("node-1") && shown.contains("rule-3") && !shown.contains('\u{1b}'), "{shown}");
    let (status, shown, _) = run(&["top", "--once", "-d", "0.2", "-o", "json"]);
    let state: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((status, state["sequence"]["head"].as_u64()), (Some(0), Some(3)));
    let (status, _, said) = run(&["top"]);
    assert!(status == Some(2) && said.contains("--once"), "{said}");
}
