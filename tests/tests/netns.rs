//! Two hosts with a bad network between them.

use anyhow::{Result, ensure};
use tests::client::{Client, get};
use tests::clock;
use tests::mint::Mint;
use tests::netns::{Host, Network, SERVER};
use tests::server::{Kind, Options, Server};

/// The modes of the wire.
const MODES: [&str; 7] = ["clean", "lossy", "bad-checksum", "window", "rst", "overlap", "overlap-back"];

#[test]
fn every_wire_still_carries_requests() -> Result<()> {
    if let Some(why) = Network::missing() {
        tests::skip("netns::every_wire_still_carries_requests", &why);
        return Ok(());
    }
    let mint = Mint::at(clock::now())?;
    let token = mint.good_of_size("alice", 3000)?;
    for mode in MODES {
        let network = Network::new(mode)?;
        let options = Options { host: Some(SERVER.to_string()), ..Options::default() };
        let server = network.on(Host::Server, || Server::start(Kind::Python, &mint, &options))?;
        network.on(Host::Client, || {
            let mut client = Client::connect(server.address)?;
            for id in 0..20 {
                let answer = client.ask(&get(&format!("/orders/{id}"), Some(&token)))?;
                ensure!(answer.status == 200, "{mode}: {}", answer.status);
            }
            Ok(())
        })?;
    }
    Ok(())
}
