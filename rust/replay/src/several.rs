//! Several routers in front of one fleet.

use routecore::hash::mix;

use crate::engine::Report;
use crate::events::Residency;
use crate::gateway::{Gateway, Request, Usage};
use crate::share::{Messages, Share};

/// Several routers side by side: each request goes to one. None knows of the others, unless they
/// share.
pub struct Several {
    routers: Vec<Box<dyn Gateway + Send>>,
    seed: u64,
    messages: Option<Messages>,
}

impl Several {
    /// At least one router; `seed` decides who gets which request.
    pub fn new(routers: Vec<Box<dyn Gateway + Send>>, seed: u64) -> Self {
        Self { routers, seed, messages: None }
    }

    /// They tell each other what they have in flight.
    #[must_use]
    pub fn sharing(mut self, share: Share) -> Self {
        self.messages = Some(Messages::new(share, self.routers.len(), self.seed));
        self
    }

    fn pass(&mut self, now: f64) {
        if let Some(messages) = &mut self.messages {
            messages.pass(&mut self.routers, now);
        }
    }

    fn of(&mut self, id: u32) -> &mut (dyn Gateway + Send) {
        let at = mix(self.seed ^ u64::from(id)) % self.routers.len() as u64;
        self.routers[at as usize].as_mut()
    }
}

impl Gateway for Several {
    fn choose(&mut self, now: f64, request: &Request<'_>) -> Option<u32> {
        self.pass(now);
        self.of(request.id).choose(now, request)
    }

    fn on_first_token(&mut self, now: f64, id: u32, engine: u32) {
        self.pass(now);
        self.of(id).on_first_token(now, id, engine);
    }

    fn on_end(&mut self, now: f64, id: u32, engine: u32, usage: Usage, ok: bool) {
        self.pass(now);
        self.of(id).on_end(now, id, engine, usage, ok);
    }

    fn on_error(&mut self, now: f64, id: u32, engine: u32) {
        self.pass(now);
        self.of(id).on_error(now, id, engine);
    }

    fn on_stats(&mut self, now: f64, engine: u32, report: &Report) {
        self.pass(now);
        self.routers.iter_mut().for_each(|router| router.on_stats(now, engine, report));
    }

    fn on_kv_events(&mut self, now: f64, engine: u32, batch: &[Residency]) {
        self.pass(now);
        self.routers.iter_mut().for_each(|router| router.on_kv_events(now, engine, batch));
    }

    fn on_down(&mut self, now: f64, engine: u32) {
        self.pass(now);
        self.routers.iter_mut().for_each(|router| router.on_down(now, engine));
    }

    fn on_up(&mut self, now: f64, engine: u32) {
        self.pass(now);
        self.routers.iter_mut().for_each(|router| router.on_up(now, engine));
    }

    fn holds(&self, id: u32) -> bool {
        let at = mix(self.seed ^ u64::from(id)) % self.routers.len() as u64;
        self.routers[at as usize].holds(id)
    }

    fn expired(&mut self, now: f64, into: &mut Vec<u32>) {
        self.pass(now);
        self.routers.iter_mut().for_each(|router| router.expired(now, into));
    }

    fn due(&mut self, into: &mut Vec<u32>) {
        self.routers.iter_mut().for_each(|router| router.due(into));
    }

    fn wake_at(&self, now: f64) -> f64 {
        self.routers.iter().map(|router| router.wake_at(now)).fold(f64::INFINITY, f64::min)
    }

    fn stopped(&mut self) -> bool {
        self.routers.iter_mut().any(|router| router.stopped())
    }
}
