//! The room over a WebSocket: browsers send typed lines, and receive JSON objects.

use crate::{
    ASK, Agreed, App, Wish,
    events::{Event, Form},
    history::{in_order, parse_id},
    room::{LOBBY, QUEUE_MAX},
};
use mainspring::{Context, Key, Reason};
use web::{
    Answer, Request,
    ws::{self, Message, Options, Ws},
};

/// A longer message ends the connection; a longer line is just refused.
const MESSAGE_MAX: usize = 16 << 10;

/// A member, or a client that may become one. There may be thousands, so it is small.
pub struct Talk {
    agreed: Option<Agreed>,
    /// What came with the request, the name first; `None` once it is a member.
    wish: Option<Box<(Option<String>, Wish)>>,
    /// It will say nothing more. It is disconnected once it has heard the result of what it said.
    leaves: bool,
}

/// `/chat?name=ann&channel=lobby&after=ID`; each part may be missing.
pub fn answer(request: &Request) -> Answer<App> {
    let channel = request.parameter("channel").unwrap_or_else(|| LOBBY.into());
    let after = request.parameter("after").and_then(|id| parse_id(&id));
    let wish = Some(Box::new((request.parameter("name"), Wish { channel, after })));
    Answer::web_socket(Talk { agreed: None, wish, leaves: false })
}

impl Talk {
    fn form(&self) -> Form {
        Form::Json(self.agreed)
    }

    fn forget_wish(&mut self, key: Key, app: &App) {
        self.wish.take_if(|_| app.room.member(key).is_some());
    }
}

impl ws::Talk<App> for Talk {
    fn options(&self) -> Options {
        Options { message_max: MESSAGE_MAX, queue_max: QUEUE_MAX, ..Options::DEFAULT }
    }

    fn open(&mut self, ctx: &mut Context<'_, App>, app: &mut App, agreed: Option<Agreed>) {
        self.agreed = agreed;
        match self.wish.as_mut().and_then(|wish| wish.0.take()) {
            Some(name) => {
                let wish = self.wish.as_ref().map(|wish| &wish.1);
                app.enter(&mut ctx.net, ctx.key, self.form(), name.trim(), wish);
                self.forget_wish(ctx.key, app);
            }
            None => App::send(&mut ctx.net, ctx.key, self.form(), &[Event::Ask { text: ASK }]),
        }
    }

    fn message(&mut self, ctx: &mut Context<'_, App>, app: &mut App, message: Message<'_>) {
        let Message::Text(typed) = message else { return ws::close(ctx, ws::UNSUPPORTED) };
        if self.leaves {
            return;
        }
        let wish = self.wish.as_ref().map(|wish| &wish.1);
        let stays = app.typed(&mut ctx.net, ctx.key, self.form(), wish, typed);
        self.forget_wish(ctx.key, app);
        if !stays {
            self.leaves = true;
            let key = ctx.key;
            in_order(&mut ctx.net, app, move |net, _| {
                net.tell(key, |_: &mut Ws<Self>, ctx, _| {
                    ws::close(ctx, ws::NORMAL);
                    Ok(())
                });
            });
        }
    }

    fn draining(&mut self, ctx: &mut Context<'_, App>, _: &mut App) {
        App::send(&mut ctx.net, ctx.key, self.form(), &[Event::notice("the room closes")]);
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, _: Reason) {
        app.left(&mut ctx.net, ctx.key);
    }
}
