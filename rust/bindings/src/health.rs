//! Health as Python sees it: outcomes by word and status, settings, who is out.

use pyo3::prelude::*;
use pyo3::types::PyString;
use routecore::Fleet;
use routecore::health::{Change, Outcome, Policy, Reason, State};

use crate::errors::to_py;
use crate::read::{Read, Seconds};

/// Settings in the order of `HealthPolicy`'s fields.
#[derive(FromPyObject)]
pub struct Settings(bool, (u32, u32, u32, u32), (f64, f64, f64), (f64, f64, f64, f64, f64));

impl Settings {
    pub fn policy(self) -> Policy {
        let Self(enabled, counts, shares, seconds) = self;
        let (failures, refusals, window, ramp) = counts;
        let (failure_share, max_out_share, jitter) = shares;
        let (base_delay, max_delay, max_retry_after, probe_timeout, forgive_after) = seconds;
        Policy {
            enabled,
            failures,
            refusals,
            failure_share,
            window,
            base_delay,
            max_delay,
            jitter,
            max_retry_after,
            max_out_share,
            ramp,
            probe_timeout,
            forgive_after,
        }
    }
}

/// When and how a request ended. What is said of it and cannot be read is an error, to be raised
/// once the request is no more in flight: for a reason that is not known, at a time that is not.
pub fn end_of(
    time: &Bound<'_, PyAny>,
    status: Option<&Bound<'_, PyAny>>,
    reason: Option<&Bound<'_, PyAny>>,
    retry_after: Option<&Bound<'_, PyAny>>,
) -> (f64, Outcome, PyResult<()>) {
    let unknown = Outcome::Failed(Reason::Unknown, None);
    match (time.extract::<Seconds>(), outcome(status, reason, retry_after)) {
        (Ok(time), Ok(outcome)) => (time.0, outcome, Ok(())),
        (Ok(time), Err(error)) => (time.0, unknown, Err(error)),
        (Err(error), _) => (f64::NAN, unknown, Err(error)),
    }
}

/// By its HTTP status, else by why it failed; neither is "served".
fn outcome(
    status: Option<&Bound<'_, PyAny>>,
    reason: Option<&Bound<'_, PyAny>>,
    retry_after: Option<&Bound<'_, PyAny>>,
) -> PyResult<Outcome> {
    let seconds = || match retry_after {
        Some(given) => given.extract::<Seconds>().map(|Read(seconds)| Some(seconds)),
        None => Ok(None),
    };
    match (reason, status) {
        (Some(reason), _) => {
            let reason = reason.cast::<PyString>()?;
            Ok(Outcome::Failed(Reason::named(reason.to_str()?).map_err(to_py)?, seconds()?))
        }
        (None, Some(status)) => {
            let status = status.extract::<Read<i64>>()?.0;
            let status = u16::try_from(status).ok().filter(|status| *status < 1000);
            let wrong = || to_py("status: expected an HTTP status from 0 to 999");
            Ok(Outcome::of_status(status.ok_or_else(wrong)?, seconds()?))
        }
        (None, None) => Ok(Outcome::Served),
    }
}

/// An endpoint that left (why) or is back (nothing), and the seconds that go with it.
pub type News = (String, Option<&'static str>, f64);

/// Who left and who is back since the last call, by row, for the caller to tell.
pub fn news(fleet: &mut Fleet, url: impl Fn(u32) -> Option<String>) -> Option<Vec<News>> {
    let changes = fleet.health.changes();
    if changes.len() == 0 {
        return None;
    }
    let named = |Change { row, out, seconds }| Some((url(row)?, out.map(Reason::name), seconds));
    Some(changes.filter_map(named).collect())
}

/// Where an endpoint stands: the state, since when, why, until when.
pub type StandingTuple = (&'static str, f64, Option<&'static str>, Option<f64>);

/// Where a row stands, unless it is in.
pub fn standing(fleet: &Fleet, row: u32) -> Option<StandingTuple> {
    let standing = fleet.health.standing(row);
    let state = match standing.state {
        State::In => return None,
        State::Out { .. } => "out",
        State::Probation { .. } => "probation",
        State::Doubted => "doubted",
    };
    Some((state, standing.since, standing.reason.map(Reason::name), standing.until))
}

/// Where the endpoints in these rows stand that are not in; empty where all are.
pub fn standings(rows: &[u32], fleet: Option<&Fleet>) -> Vec<Option<StandingTuple>> {
    let Some(fleet) = fleet.filter(|fleet| fleet.health.is_disturbed()) else { return Vec::new() };
    rows.iter().map(|&row| standing(fleet, row)).collect()
}
