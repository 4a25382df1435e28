//! The same line client in a dashboard with state, many gauges, reconnection, and a state that borrows from the stack? No: S: 'static here, because closures with S are stored.
#[path = "common/line_client.rs"]
mod line_client;
use line_client::LineClient;
use mainspring::*;
use std::{collections::BTreeMap, io, time::Duration};

#[derive(Default)]
struct Board {
    gauges: BTreeMap<String, Gauge>,
    alarms: Vec<String>,
}
#[derive(Default)]
struct Gauge {
    key: Option<Key>,
    value: Option<f64>,
    tries: u32,
}

fn dial(net: &mut Net<'_, Board>, board: &mut Board, host: String) {
    let (news_from, lost_from, target) = (host.clone(), host.clone(), format!("{host}:7000"));
    let client = LineClient::new(|_, ctx, _| {
        poll(&mut ctx.net, ctx.key);
        Ok(())
    })
    .on_unasked(move |_, board, news| {
        board.alarms.push(format!("{news_from}: {news}"));
        Ok(())
    })
    .on_closed(move |ctx, board, _| {
        let Some(gauge) = board.gauges.get_mut(&lost_from) else { return };
        gauge.key = None;
        gauge.tries = (gauge.tries + 1).min(6);
        ctx.net.after(Duration::from_secs(1 << gauge.tries), move |net, board| dial(net, board, lost_from));
    });
    board.gauges.entry(host).or_default().key = Some(net.connect(target, client));
}
fn poll(net: &mut Net<'_, Board>, key: Key) {
    LineClient::ask_by_key(net, key, "VALUE".into(), |_, ctx, board, answer| {
        let value = answer.map_err(|_| "gone")?.trim().parse()?;
        if let Some(gauge) = board.gauges.values_mut().find(|g| g.key == Some(ctx.key)) {
            gauge.value = Some(value);
            gauge.tries = 0
        }
        ctx.after(Duration::from_secs(1), |_: &mut LineClient<Board>, ctx, _| {
            poll(&mut ctx.net, ctx.key);
            Ok(())
        });
        Ok(())
    });
}
fn main() -> io::Result<()> {
    let (mut reactor, mut board) = (Reactor::new()?, Board::default());
    for host in ["a.example", "b.example"] {
        dial(&mut reactor.net(), &mut board, host.into())
    }
    reactor.net().every(Duration::from_secs(5), |_, board| {
        for (host, g) in &board.gauges {
            println!("{host}: {:?}", g.value)
        }
    });
    reactor.run(&mut board)
}
