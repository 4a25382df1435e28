//! The same, spoken in TLS; and TLS that begins in mid-stream.

use super::{
    CLIENT, Call, Player, SERVER, Stage, a_large_producer_with_a_slow_reader, abort_in_mid_transfer, configs::sides, echo,
    echoes, half_close_both_ways, linger_with_a_slow_reader, player, upgrade_in_mid_stream,
};
use mainspring::{TlsClient, TlsServer, rustls::pki_types::ServerName};

impl Stage {
    /// Whoever listens or connects from now on.
    fn speak_tls(&mut self) {
        let (server, client) = both();
        self.tls = Some(server);
        for host in [SERVER, CLIENT, super::THIRD] {
            let client = client.clone();
            self.with(host, |_, book| book.tls = Some(client));
        }
    }
}

fn both() -> (TlsServer, TlsClient) {
    let (server, client) = sides();
    (server.into(), TlsClient::new(client).server_name(ServerName::try_from("localhost").expect("a name")))
}

pub(crate) fn an_echo_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    echo(stage);
}

pub(crate) fn half_close_both_ways_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    half_close_both_ways(stage);
}

pub(crate) fn upgrade_in_mid_stream_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    upgrade_in_mid_stream(stage);
}

pub(crate) fn a_large_producer_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    a_large_producer_with_a_slow_reader(stage);
}

pub(crate) fn linger_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    linger_with_a_slow_reader(stage);
}

pub(crate) fn abort_in_mid_transfer_in_tls(stage: &mut Stage) {
    stage.speak_tls();
    abort_in_mid_transfer(stage);
}

/// One asks for it in clear, the other agrees, and both go on in TLS.
pub(crate) fn tls_in_mid_stream(stage: &mut Stage) {
    let (server, client) = both();
    let door = stage.listen(SERVER, move || {
        let server = server.clone();
        player("clear", move |me, call| match call {
            Call::Connected => {
                me.lines();
                Ok(())
            }
            Call::Frame(_) => {
                me.send("yes\n");
                me.start_tls(server.clone(), echoes());
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let asks = player("asks", move |me, call| match call {
        Call::Connected => {
            me.lines();
            me.send("tls?\n");
            Ok(())
        }
        Call::Frame(_) => {
            me.start_tls(client.clone(), says_something());
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, asks);
}

fn says_something() -> Player {
    let mut heard = 0;
    player("secured", move |me, call| match call {
        Call::Connected => {
            me.send("something\nelse\n");
            Ok(())
        }
        Call::Received(bytes) => {
            heard += bytes.len();
            if heard == "something\nelse\n".len() {
                me.close();
            }
            Ok(())
        }
        call => me.usual(call),
    })
}
