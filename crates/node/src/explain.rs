//! The plan of a call, which is resolved in this process: nothing is touched, so no supervisor is needed.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use nsrs_core::plan::Plan;
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

/// The work, on a thread of Node's own pool: files are read for it.
#[derive(Debug)]
pub struct Resolving {
    spec: String,
}

impl Task for Resolving {
    type Output = std::result::Result<Plan, Vec<nsrs_base::error::Error>>;
    type JsValue = Explanation;

    fn compute(&mut self) -> Result<Self::Output> {
        Ok(resolve::explain(&self.spec))
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> Result<Explanation> {
        let plan = match output {
            Ok(plan) => plan,
            Err(errors) => {
                let failed = Some(errors.into_iter().map(Into::into).collect());
                return Ok(Explanation { failed, ..Explanation::default() });
            }
        };
        let json = serde_json::to_string_pretty(&plan).map_err(|error| Error::from_reason(error.to_string()))?;
        Ok(Explanation { text: plan.to_string(), json, failed: None })
    }
}

/// Resolves the plan of the JSON of a `Spec` and touches nothing.
#[napi(ts_return_type = "Promise<Explanation>")]
pub fn explain(spec: String) -> AsyncTask<Resolving> {
    AsyncTask::new(Resolving { spec })
}
