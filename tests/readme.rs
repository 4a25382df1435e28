//! What README shows of a test, and a check that it shows just this.
#![cfg(feature = "sim")]

use mainspring::{Context, Outcome, Protocol};

struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainspring::testing::{Weather, check};
    use std::time::Duration;

    /// Says a word, and keeps what comes back.
    struct Caller;

    impl Protocol<Vec<u8>> for Caller {
        fn connected(&mut self, ctx: &mut Context<'_, Vec<u8>>, _: &mut Vec<u8>) -> Outcome {
            ctx.send(b"hello");
            Ok(())
        }

        fn received(&mut self, _: &mut Context<'_, Vec<u8>>, heard: &mut Vec<u8>, bytes: &[u8]) -> Outcome {
            heard.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn what_comes_back_is_the_beginning_of_what_was_said() {
        check(0..1000, |sim| {
            let server = sim.host("10.0.0.1", ());
            let client = sim.host("10.0.0.2", Vec::new());
            sim.net(server).listen("10.0.0.1:7000", || Echo).expect("a free port");
            sim.net(client).connect("10.0.0.1:7000", Caller);
            sim.set_weather(Weather::rough()).run_for(Duration::from_secs(60));
            // Cut short, perhaps; never out of order, never twice, never anything else.
            assert!(b"hello".starts_with(sim.state(client)));
        });
    }
}

#[test]
fn readme_shows_this_test_as_it_is() {
    let (readme, here) = (include_str!("../README.md"), include_str!("readme.rs"));
    let (_, shown) = readme.split_once("```rust,ignore\n").expect("a block");
    let (shown, _) = shown.split_once("```").expect("it ends");
    assert!(here.contains(shown), "one of the two has changed");
}
