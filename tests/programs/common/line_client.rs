//! A reusable protocol: ask a line, get a line; unasked lines (starting with '!') go to a hook. Generic over the application's state.
use mainspring::*;
use std::{collections::VecDeque, str, time::Duration};

pub type Answer<S> = Box<dyn FnOnce(&mut LineClient<S>, &mut Context<'_, S>, &mut S, Result<&str, Gone>) -> Outcome>;
pub type Hook<S> = Box<dyn FnMut(&mut Context<'_, S>, &mut S, &str) -> Outcome>;

/// Closures are boxed, not type parameters: `tell` has to name the type, and nobody can name a closure's.
pub struct LineClient<S> {
    asked: VecDeque<Answer<S>>,
    unasked: Option<Hook<S>>,
    opened: Option<Answer<S>>,
    gone: Option<Box<dyn FnOnce(&mut Context<'_, S>, &mut S, Reason)>>,
    answer_max: Duration,
}

impl<S: 'static> LineClient<S> {
    pub fn new(opened: impl FnOnce(&mut Self, &mut Context<'_, S>, &mut S) -> Outcome + 'static) -> Self {
        Self {
            asked: VecDeque::new(),
            unasked: None,
            opened: Some(Box::new(|me, ctx, state, _| opened(me, ctx, state))),
            gone: None,
            answer_max: Duration::from_secs(10),
        }
    }
    pub fn on_unasked(mut self, hook: impl FnMut(&mut Context<'_, S>, &mut S, &str) -> Outcome + 'static) -> Self {
        self.unasked = Some(Box::new(hook));
        self
    }
    pub fn on_closed(mut self, hook: impl FnOnce(&mut Context<'_, S>, &mut S, Reason) + 'static) -> Self {
        self.gone = Some(Box::new(hook));
        self
    }
    pub fn ask(
        &mut self,
        ctx: &mut Context<'_, S>,
        question: &str,
        answer: impl FnOnce(&mut Self, &mut Context<'_, S>, &mut S, Result<&str, Gone>) -> Outcome + 'static,
    ) {
        writeln!(ctx, "{question}");
        if self.asked.is_empty() {
            ctx.set_deadline(self.answer_max)
        }
        self.asked.push_back(Box::new(answer));
    }
    /// From anywhere else in the application, by key.
    #[allow(dead_code)]
    pub fn ask_by_key(
        net: &mut Net<'_, S>,
        key: Key,
        question: String,
        answer: impl FnOnce(&mut Self, &mut Context<'_, S>, &mut S, Result<&str, Gone>) -> Outcome + 'static,
    ) -> bool {
        net.tell(key, move |me: &mut Self, ctx, _| {
            me.ask(ctx, &question, answer);
            Ok(())
        })
    }
}
impl<S: 'static> Protocol<S> for LineClient<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(4096));
        match self.opened.take() {
            Some(opened) => opened(self, ctx, state, Ok("")),
            None => Ok(()),
        }
    }
    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, line: &[u8]) -> Outcome {
        let line = str::from_utf8(line)?;
        if let Some(news) = line.strip_prefix('!') {
            return match &mut self.unasked {
                Some(hook) => hook(ctx, state, news),
                None => Ok(()),
            };
        }
        let answer = self.asked.pop_front().ok_or("an answer nobody asked for")?;
        ctx.set_deadline((!self.asked.is_empty()).then_some(self.answer_max));
        answer(self, ctx, state, Ok(line)) // popped, so it may have all of us
    }
    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        for answer in std::mem::take(&mut self.asked) {
            let _ = answer(self, ctx, state, Err(Gone));
        } // an Outcome in `closed` has nowhere to go
        if let Some(gone) = self.gone.take() {
            gone(ctx, state, why)
        }
    }
}
