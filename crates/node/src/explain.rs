//! The plan of a call, which is resolved in this process: nothing is touched, so no supervisor is needed.
//!
//! Not on another thread: it reads the environment, which JavaScript may change meanwhile.

use napi_derive::napi;
use nsrs_core::supervise::resolve;

use crate::events::ErrorRecord;

/// A plan that was resolved and not carried out, or every reason why there is none.
#[napi(object)]
#[derive(Debug, Default)]
pub struct Explanation {
    /// The plan for people.
    pub text: String,
    /// The whole plan as JSON.
    pub json: String,
    /// Every problem of the call; then there is no plan.
    pub failed: Option<Vec<ErrorRecord>>,
}

/// Resolves the plan of the JSON of a `Spec` and touches nothing.
#[napi]
pub fn explain(spec: String) -> Explanation {
    match resolve::explain(&spec) {
        Ok(plan) => Explanation {
            text: plan.to_string(),
            json: serde_json::to_string_pretty(&plan).unwrap_or_default(),
            failed: None,
        },
        Err(errors) => {
            let failed = Some(errors.into_iter().map(Into::into).collect());
            Explanation { failed, ..Explanation::default() }
        }
    }
}
