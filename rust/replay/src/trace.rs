//! A trace in columns: arrivals, lengths, the identity of every block, and who waits for whom.

use routecore::RouteError;
use routecore::error::Shown;

use crate::conditions::LATEST;
use crate::mixed_map::MixedMap;

/// Output tokens of one request, at most: far above what any engine generates.
const MOST_OUTPUT: u32 = 1 << 22;

/// One request as a reader hands it in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row<'a> {
    /// Milliseconds; ignored for a request that waits for others.
    pub arrival: f64,
    /// Prompt tokens, at least 1.
    pub input: u32,
    /// Tokens generated, at least 1.
    pub output: u32,
    /// One id a block of the prompt; ids behind the prompt name blocks of the output.
    pub ids: &'a [u64],
    /// The session, if the trace tells.
    pub session: Option<u64>,
    /// Requests (numbers of earlier rows) that must end first.
    pub after: &'a [u32],
    /// Milliseconds between the last of those ends and this arrival.
    pub delay: f64,
}

/// Requests in columns. Blocks have dense numbers: equal number means equal prefix up to there.
#[derive(Debug, Clone)]
pub struct Trace {
    block: u32,
    pub(crate) arrivals: Vec<f64>,
    pub(crate) inputs: Vec<u32>,
    pub(crate) outputs: Vec<u32>,
    pub(crate) sessions: Vec<Option<u64>>,
    pub(crate) delays: Vec<f64>,
    blocks: Vec<u32>,
    ends: Vec<usize>,
    pub(crate) after: Vec<u32>,
    pub(crate) after_ends: Vec<usize>,
    /// Predecessor of each block that keeps its id as its number.
    parents: Vec<u32>,
    /// Numbers of the other blocks.
    known: MixedMap<(u32, u64), u32>,
}

const ROOT: u32 = u32::MAX;
const UNSEEN: u32 = u32::MAX - 1;
/// Numbers from here on are given to blocks whose id cannot be one.
const RENUMBERED: u32 = 1 << 31;

impl Trace {
    /// An empty trace whose ids stand for `block` tokens each.
    ///
    /// # Errors
    /// On a block of 0 tokens.
    pub fn new(block: u32) -> Result<Self, RouteError> {
        if block == 0 {
            return Err(RouteError("trace block size: expected at least 1 token, got 0".into()));
        }
        Ok(Self {
            block,
            arrivals: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            sessions: Vec::new(),
            delays: Vec::new(),
            blocks: Vec::new(),
            ends: Vec::new(),
            after: Vec::new(),
            after_ends: Vec::new(),
            parents: Vec::new(),
            known: MixedMap::default(),
        })
    }

    /// Appends a request.
    ///
    /// # Errors
    /// On lengths of 0, times that are no numbers, or a predecessor that is no earlier row.
    pub fn push(&mut self, row: Row<'_>) -> Result<(), RouteError> {
        let at = self.len();
        let bad = |what: String| Err(RouteError(format!("request {at}: {what}")));
        if row.input == 0 || row.output == 0 {
            let (i, o) = (row.input, row.output);
            return bad(format!("expected at least 1 input and 1 output token, got {i} and {o}"));
        }
        if !row.arrival.is_finite() || !row.delay.is_finite() || row.delay < 0.0 {
            let (a, d) = (Shown(row.arrival), Shown(row.delay));
            return bad(format!("expected finite times and a delay ≥ 0, got {a} and {d}"));
        }
        if row.output > MOST_OUTPUT {
            let output = row.output;
            return bad(format!("expected at most {MOST_OUTPUT} output tokens, got {output}"));
        }
        if row.arrival.abs() > LATEST || row.delay > LATEST {
            let (a, d) = (Shown(row.arrival), Shown(row.delay));
            return bad(format!("expected times and delays up to 1e15 ms, got {a} and {d}"));
        }
        if let Some(other) = row.after.iter().find(|&&other| other as usize >= at) {
            return bad(format!("waits for request {other}, which is not an earlier one"));
        }
        let mut parent = ROOT;
        for &id in row.ids {
            parent = self.number(parent, id);
            self.blocks.push(parent);
        }
        self.ends.push(self.blocks.len());
        self.after.extend_from_slice(row.after);
        self.after_ends.push(self.after.len());
        self.arrivals.push(row.arrival);
        self.inputs.push(row.input);
        self.outputs.push(row.output);
        self.sessions.push(row.session);
        self.delays.push(row.delay);
        Ok(())
    }

    /// The first `rows` requests alone: who waits, waits for earlier ones, so nothing is cut off.
    #[must_use]
    pub fn head(&self, rows: usize) -> Self {
        let mut head = self.clone();
        head.arrivals.truncate(rows);
        head.inputs.truncate(rows);
        head.outputs.truncate(rows);
        head.sessions.truncate(rows);
        head.delays.truncate(rows);
        head.ends.truncate(rows);
        head.after_ends.truncate(rows);
        head.blocks.truncate(head.ends.last().copied().unwrap_or(0));
        head.after.truncate(head.after_ends.last().copied().unwrap_or(0));
        head
    }

    /// Requests.
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Tokens a block id stands for.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The number of a block behind `parent`.
    ///
    /// Ids of the known formats are small, dense, and have one predecessor each: then the id is
    /// the number, and a block costs 4 bytes. Any other id is given a number.
    fn number(&mut self, parent: u32, id: u64) -> u32 {
        let room = (1 << 20) + 2 * self.blocks.len();
        if id < room.min(RENUMBERED as usize) as u64 {
            let at = id as usize;
            if at >= self.parents.len() {
                self.parents.resize(at + 1, UNSEEN);
            }
            if self.parents[at] == UNSEEN && !self.known.contains_key(&(parent, id)) {
                self.parents[at] = parent;
            }
            if self.parents[at] == parent {
                return id as u32;
            }
        }
        let fresh = RENUMBERED + self.known.len() as u32;
        *self.known.entry((parent, id)).or_insert(fresh)
    }

    /// Prompt tokens of all requests.
    pub fn input_tokens(&self) -> u64 {
        self.inputs.iter().map(|&n| u64::from(n)).sum()
    }

    /// Prompt tokens of a request.
    pub fn input(&self, request: u32) -> u32 {
        self.inputs[request as usize]
    }

    /// Tokens a request generates.
    pub fn output(&self, request: u32) -> u32 {
        self.outputs[request as usize]
    }

    /// The session of a request, if the trace tells.
    pub fn session(&self, request: u32) -> Option<u64> {
        self.sessions[request as usize]
    }

    /// Dense block numbers of a request, those of its output included where the trace has them.
    pub fn blocks(&self, request: u32) -> &[u32] {
        let at = request as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.blocks[start..self.ends[at]]
    }

    /// Requests that must end before this one arrives.
    pub(crate) fn predecessors(&self, request: u32) -> &[u32] {
        let at = request as usize;
        let start = if at == 0 { 0 } else { self.after_ends[at - 1] };
        &self.after[start..self.after_ends[at]]
    }

    /// The trace at the grain of an engine's block.
    ///
    /// # Errors
    /// When neither block size divides the other.
    pub fn at_grain(&self, engine_block: u32) -> Result<Grain<'_>, RouteError> {
        let (trace, engine) = (self.block, engine_block);
        if engine == 0 || (trace % engine != 0 && engine % trace != 0) {
            return Err(RouteError(format!(
                "engine block of {engine} tokens: expected a divisor or a multiple of the \
                 trace's {trace}, or no hit would ever be found"
            )));
        }
        let stride = (engine / trace).max(1) as usize;
        let mut segments = Vec::with_capacity(self.blocks.len() / stride);
        let (mut ends, mut named) = (Vec::new(), Vec::new());
        for request in 0..self.len() as u32 {
            let ids = self.blocks(request);
            segments.extend(ids.iter().skip(stride - 1).step_by(stride));
            ends.push(segments.len());
            let at = request as usize;
            let prompt_ids = self.inputs[at].div_ceil(trace) as usize;
            let tokens = self.inputs[at] + self.outputs[at];
            let tokens = if ids.len() > prompt_ids { tokens } else { self.inputs[at] };
            named.push(tokens.min(ids.len() as u32 * trace) / engine);
        }
        Ok(Grain {
            trace: self,
            block: engine,
            ratio: (trace / engine).max(1),
            segments,
            ends,
            named,
        })
    }
}

/// A trace seen at an engine's block size.
///
/// A segment is a block id's worth of engine blocks (`ratio` of them), or one engine block where
/// that is the larger. What comes behind the named blocks belongs to the request alone.
pub struct Grain<'t> {
    /// The trace.
    pub trace: &'t Trace,
    /// Tokens of an engine block.
    pub block: u32,
    ratio: u32,
    segments: Vec<u32>,
    ends: Vec<usize>,
    named: Vec<u32>,
}

impl Grain<'_> {
    /// The way of a request through the block cache.
    pub fn path(&self, request: u32) -> Path<'_> {
        let at = request as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        let named = self.named[at];
        Path {
            segments: &self.segments[start..self.ends[at]][..named.div_ceil(self.ratio) as usize],
            ratio: self.ratio,
            named,
            own: (1 << 32) | u64::from(request),
        }
    }
}

/// The segments of one request.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    segments: &'a [u32],
    ratio: u32,
    named: u32,
    own: u64,
}

/// A piece of a path: a segment, the first block of the request in it, how many it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Identity of the segment.
    pub segment: u64,
    /// Number of its first block, counted from the start of the request.
    pub start: u32,
    /// Blocks in it.
    pub blocks: u32,
}

impl Path<'_> {
    /// The piece at `index`; the last one, without end, is the request's own.
    pub fn piece(&self, index: usize) -> Piece {
        match self.segments.get(index) {
            Some(&segment) => {
                let segment = u64::from(segment);
                let start = index as u32 * self.ratio;
                Piece { segment, start, blocks: self.ratio.min(self.named - start) }
            }
            None => Piece { segment: self.own, start: self.named, blocks: u32::MAX - self.named },
        }
    }

    /// Index of the piece that holds a block.
    pub fn index(&self, block: u32) -> usize {
        if block < self.named { (block / self.ratio) as usize } else { self.segments.len() }
    }
}
