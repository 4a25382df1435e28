//! Can the state borrow from the stack?
use mainspring::*;
pub struct Log<'a> {
    pub lines: &'a mut Vec<String>,
}
pub struct P;
impl<'a> Protocol<Log<'a>> for P {
    fn received(&mut self, ctx: &mut Context<'_, Log<'a>>, log: &mut Log<'a>, b: &[u8]) -> Outcome {
        log.lines.push(String::from_utf8_lossy(b).into_owned());
        ctx.net.tell(ctx.key, |_: &mut P, _, log| {
            log.lines.push("told".into());
            Ok(())
        });
        ctx.net.after(std::time::Duration::from_secs(1), |_, log| log.lines.push("later".into()));
        Ok(())
    }
}
fn main() -> std::io::Result<()> {
    let mut lines = Vec::new();
    let mut reactor = Reactor::new()?;
    reactor.net().listen("127.0.0.1:1", || P)?;
    reactor.run(&mut Log { lines: &mut lines })?;
    drop(reactor);
    println!("{lines:?}");
    Ok(())
}
