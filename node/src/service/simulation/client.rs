//! A client: it sends what its protocol's talk has to say, cut anywhere, reads when it likes, and
//! goes when it likes.

use larder_runtime::random::Random;
use larder_runtime::simulation::SimClient;

use super::CLIENTS_MAX;
use super::memcached_talk::MemcachedTalk;
use super::native_talk::NativeTalk;
use super::node::{MEMCACHED, NATIVE};

/// What a client says, and what it must be answered: the model.
pub(super) trait Talk {
    /// Appends the next request.
    fn say(&mut self, random: &mut Random, out: &mut Vec<u8>);

    /// Appends what asks for the end of the connection, if the protocol has that.
    fn say_goodbye(&mut self, out: &mut Vec<u8>) -> bool;

    /// Takes bytes that have come, and panics if they are not what they must be.
    fn hear(&mut self, bytes: &[u8]);

    /// How many requests are not answered yet.
    fn unanswered(&self) -> usize;
}

/// How a client's work ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// It says goodbye, or ends its side where the protocol has no word for that.
    Goodbye,
    /// It ends its side and reads what is left.
    Finish,
    /// It tears the connection down after so many requests, whatever is under way.
    Reset(usize),
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    is_native: bool,
    /// It connects when so many others have gone.
    comes_after: usize,
    /// The core that it connects to.
    core: usize,
    /// Bytes that it lets come before it reads.
    window: usize,
    /// Requests that it makes, and that it has under way at most.
    requests: usize,
    depth: usize,
    /// How often it reads when it could, in percent, and how much at once.
    reads_percent: u64,
    read_bytes_max: usize,
    /// The most that it sends at once.
    send_bytes_max: usize,
    farewell: Farewell,
    /// How often it comes again at once when it has torn its connection down, as somebody else.
    returns: usize,
}

impl Habits {
    /// Those of the client with this number; those before it do not wait for it.
    pub(super) fn random(number: usize, random: &mut Random) -> Self {
        let requests = random.count(1..=40);
        Self {
            is_native: random.percent(50),
            comes_after: if random.percent(50) { 0 } else { random.index(number + 1) },
            core: random.index(2),
            window: random.pick(&[100, 3000, 8 << 10, 256 << 10]),
            requests,
            depth: random.pick(&[1, 4, 64]),
            reads_percent: random.pick(&[10, 30, 100]),
            read_bytes_max: random.pick(&[100, 10_000, 1 << 20]),
            send_bytes_max: random.pick(&[3, 100, 20_000, 1 << 20]),
            farewell: match random.index(4) {
                0 => Farewell::Reset(random.index(requests + 1)),
                1 => Farewell::Goodbye,
                _ => Farewell::Finish,
            },
            returns: random.pick(&[0, 1, 6]),
        }
    }
}

impl Habits {
    fn talk(&self, number: usize) -> Box<dyn Talk> {
        // Who takes little at a time would be at it for ever with long values.
        let value_bytes_max = 30 * self.window.min(self.read_bytes_max);
        if self.is_native {
            Box::new(NativeTalk::new(number, value_bytes_max))
        } else {
            Box::new(MemcachedTalk::new(number, value_bytes_max))
        }
    }
}

/// A client and what it has seen.
pub(super) struct Client {
    /// No two have the same, nor do those as whom one comes again.
    number: usize,
    habits: Habits,
    random: Random,
    talk: Box<dyn Talk>,
    socket: Option<SimClient>,
    /// What it has said and not sent.
    unsent: Vec<u8>,
    said: usize,
    has_finished: bool,
    is_done: bool,
    /// Everything that it was sent.
    heard: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { habits, said, is_done, has_finished, .. } = self;
        let unanswered = self.talk.unanswered();
        write!(formatter, "{habits:?}: {said} said, {unanswered} unanswered, ")?;
        write!(formatter, "finished {has_finished}, done {is_done}")
    }
}

impl Client {
    pub(super) fn new(number: usize, habits: Habits, random: Random) -> Self {
        let talk = habits.talk(number);
        Self {
            number,
            habits,
            random,
            talk,
            socket: None,
            unsent: Vec::new(),
            said: 0,
            has_finished: false,
            is_done: false,
            heard: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What it was sent, and whether its work was done to the end.
    pub(super) fn into_outcome(self) -> (Vec<u8>, bool) {
        (self.heard, self.is_done && self.has_finished)
    }

    /// Does one thing, if there is one to do; returns whether there was. So many others have gone;
    /// `connect` is given the listener, the window and the core.
    pub(super) fn step(
        &mut self,
        gone: usize,
        connect: impl FnOnce(usize, usize, usize) -> SimClient,
    ) -> bool {
        if self.is_done || gone < self.habits.comes_after {
            return false;
        }
        if self.socket.is_none() {
            let listener = if self.habits.is_native { NATIVE } else { MEMCACHED };
            self.socket = Some(connect(listener, self.habits.window, self.habits.core));
            return true;
        }
        if let Farewell::Reset(after) = self.habits.farewell
            && self.said >= after
            && self.random.percent(20)
        {
            self.socket().reset();
            self.begin_anew();
            return true;
        }
        let has_read = self.random.percent(self.habits.reads_percent) && self.read();
        let has_said = self.say();
        has_read | has_said | self.send() | self.part()
    }

    /// Comes again as somebody else, if it does.
    fn begin_anew(&mut self) {
        let Some(returns) = self.habits.returns.checked_sub(1) else {
            self.is_done = true;
            return;
        };
        self.habits.returns = returns;
        self.number += CLIENTS_MAX;
        self.talk = self.habits.talk(self.number);
        (self.socket, self.said) = (None, 0);
        self.unsent.clear();
    }

    fn socket(&self) -> &SimClient {
        self.socket.as_ref().expect("it has connected")
    }

    fn read(&mut self) -> bool {
        let most = self.random.count(1..=self.habits.read_bytes_max);
        let bytes = self.socket().read(most);
        self.talk.hear(&bytes);
        self.heard.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    /// Says the next thing, if it may have more under way.
    fn say(&mut self) -> bool {
        let may_say = self.said < self.habits.requests
            && self.talk.unanswered() < self.habits.depth
            && self.unsent.len() < 1 << 20;
        if may_say {
            self.said += 1;
            self.talk.say(&mut self.random, &mut self.unsent);
        }
        may_say
    }

    /// Sends a piece of what it has said.
    fn send(&mut self) -> bool {
        let most = self.unsent.len().min(self.habits.send_bytes_max);
        // What the core does not take fills what is between, as on any line.
        let is_full = self.socket().unreceived() > 64 << 10;
        if most == 0 || is_full || self.has_finished {
            return false;
        }
        let len = self.random.count(1..=most);
        let piece: Vec<u8> = self.unsent.drain(..len).collect();
        self.socket().send(&piece);
        true
    }

    /// Ends when all is said, and sees that it is ended in good order.
    fn part(&mut self) -> bool {
        if self.said < self.habits.requests || !self.unsent.is_empty() {
            return false;
        }
        if matches!(self.habits.farewell, Farewell::Reset(_)) {
            return false;
        }
        if !std::mem::replace(&mut self.has_finished, true) {
            let mut goodbye = Vec::new();
            if self.habits.farewell == Farewell::Goodbye && self.talk.say_goodbye(&mut goodbye) {
                self.socket().send(&goodbye);
            } else {
                self.socket().finish();
            }
            return true;
        }
        if !self.socket().is_over() {
            return false;
        }
        assert!(!self.socket().was_reset(), "the connection was not ended in good order");
        assert_eq!(self.talk.unanswered(), 0, "answers are missing");
        self.socket().finish();
        self.is_done = true;
        true
    }
}
