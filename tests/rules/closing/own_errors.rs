//! `closed` has the program's own error again.

use mainspring::{Context, Limit, Net, Outcome, Protocol, Reason, testing::Transcript};
use std::{fmt, time::Duration};

/// Of the program.
#[derive(Debug, PartialEq)]
struct NoRoom(u32);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are missing", self.0)
    }
}

impl std::error::Error for NoRoom {}

struct Upload;

impl Protocol<Vec<String>> for Upload {
    fn received(&mut self, ctx: &mut Context<'_, Vec<String>>, _: &mut Vec<String>, bytes: &[u8]) -> Outcome {
        match bytes {
            b"err" => return Err(NoRoom(1).into()),
            b"fail" => ctx.fail(NoRoom(2)),
            b"timer" => _ = ctx.after(Duration::ZERO, |_: &mut Self, _, _| Err(NoRoom(3).into())),
            b"limit" => return Err(Limit::Idle.into()),
            b"text" => return Err("some text".into()),
            _ => ctx.close(),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Vec<String>>, seen: &mut Vec<String>, why: Reason) {
        seen.extend(why.downcast_ref::<NoRoom>().map(|error| format!("{error:?}")));
        seen.extend(why.downcast_ref::<Limit>().map(|limit| format!("{limit:?}")));
    }
}

#[test]
fn closed_looks_at_the_programs_own_error() {
    let rows =
        [("err", "NoRoom(1)"), ("fail", "NoRoom(2)"), ("timer", "NoRoom(3)"), ("limit", "Idle"), ("text", ""), ("close", "")];
    for (word, expected) in rows {
        let mut t = Transcript::<_, Vec<String>>::new(Upload);
        t.receives(word).passes(Duration::from_millis(1));
        if t.end().is_none() {
            t.peer_ends();
        }
        assert_eq!(t.state().concat(), expected, "{word}");
    }
    let mut t = Transcript::<_, Vec<String>>::new(Upload);
    let key = t.key();
    let fails = |net: &mut Net<'_, Vec<String>>| net.fail(key, NoRoom(4));
    fails(&mut t.scene().net());
    assert_eq!(t.settles().state().concat(), "NoRoom(4)");
}
