//! Python bindings: convert, lock, call. No routing rule lives here.

mod admit;
mod around;
mod attribute;
mod call;
mod choice;
mod chosen;
mod columns;
mod decide;
mod eight;
mod endpoint_list;
mod errors;
mod fallbacks;
mod forks;
mod given;
mod health;
mod json;
mod kv_events;
mod list_state;
mod living;
mod locked;
mod objects;
mod prompt;
mod quick;
mod read;
mod replay;
mod replicas;
mod router;
mod router_state;
mod rows;
mod saved;
mod side;
mod source;
mod table;
mod text;
mod threads;
mod token_ids;
mod tries;
mod values;
mod views;

use pyo3::prelude::*;

/// The compiled core of routecore.
#[pymodule(gil_used = true)] // who holds the interpreter is alone with its objects
mod _core {
    #[pymodule_export]
    use crate::admit::Hold;
    #[pymodule_export]
    use crate::fallbacks::ranked;
    #[pymodule_export]
    use crate::forks::{after_fork_in_child, after_fork_in_parent, before_fork};
    #[pymodule_export]
    use crate::json::json;
    #[pymodule_export]
    use crate::kv_events::KvIndex;
    #[pymodule_export]
    use crate::replay::{Trace, prompt_blocks, replay};
    #[pymodule_export]
    use crate::replicas::{Replicas, own_and_others};
    #[pymodule_export]
    use crate::router::Router;
    #[pymodule_export]
    use crate::saved::{load_table, save_table, saved_hashing};
    #[pymodule_export]
    use crate::table::Table;
    #[pymodule_export]
    use crate::threads::leave_interpreter;
    #[pymodule_export]
    use crate::views::{ResidentEngineStats, ResidentRequestStats};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("STATS", routecore::Stat::ALL.iter().map(|s| s.name()).collect::<Vec<_>>())?;
        module.add("STRATEGIES", routecore::strategy::Strategy::NAMES.to_vec())?;
        let profiles = routecore_replay::timing::PROFILES.iter().map(|p| (p.name, p.kv_tokens));
        module.add("PROFILES", profiles.collect::<Vec<_>>())?;
        module.add("BODY_KEYS", crate::prompt::KEYS.to_vec())?;
        module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
        module.add("DEBUG_BUILD", cfg!(debug_assertions))
    }
}
