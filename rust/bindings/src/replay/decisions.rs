//! Decisions of a replay, as Python reads them.

use routecore_replay::decisions::Decision;

/// Term of a score: name, value, unit.
type TermTuple = (&'static str, f64, &'static str);
/// What a candidate scored: engine, score, terms.
type CandidateTuple = (u32, f64, Vec<TermTuple>);
/// Request, milliseconds, engine, number of candidates, those that were kept.
pub type DecisionTuple = (u32, f64, u32, u32, Vec<CandidateTuple>);

/// All of them, as tuples.
pub fn tuples(decisions: Vec<Decision>) -> Vec<DecisionTuple> {
    let tuple = |decision: Decision| {
        let Decision { request, time, engine, among, candidates } = decision;
        let scored = candidates.into_iter().map(|(engine, scored)| {
            let terms = scored.terms.iter().map(|term| (term.name, term.value, term.unit));
            (engine, scored.score, terms.collect())
        });
        (request, time, engine, among, scored.collect())
    };
    decisions.into_iter().map(tuple).collect()
}
