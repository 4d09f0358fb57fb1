//! A network namespace that somebody else made, joined and left as it is.

use std::fmt;

use super::{ContainerSide, NamespaceOwner, NetworkKind, Rows};
use nsrs_base::error::Result;

#[derive(Debug)]
pub struct JoinedNetwork;

impl NetworkKind for JoinedNetwork {
    fn name(&self) -> &'static str {
        "joined"
    }

    fn namespace(&self) -> NamespaceOwner {
        NamespaceOwner::Other
    }

    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result {
        rows.prose("network", "that of the joined namespace, left as it is")
    }

    fn can_be_prewarmed(&self) -> bool {
        false
    }

    fn inside(&self, _side: &dyn ContainerSide) -> Result<()> {
        Ok(())
    }
}
