//! The caller's own network: nothing is made, and nothing is kept apart.

use std::fmt;

use super::{ContainerSide, NamespaceOwner, NetworkKind, Rows};
use nsrs_base::error::Result;

#[derive(Debug)]
pub struct HostNetwork;

impl NetworkKind for HostNetwork {
    fn name(&self) -> &'static str {
        "host"
    }

    fn namespace(&self) -> NamespaceOwner {
        NamespaceOwner::Caller
    }

    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result {
        rows.prose("network", "the host's")
    }

    fn can_be_prewarmed(&self) -> bool {
        true
    }

    fn inside(&self, _side: &dyn ContainerSide) -> Result<()> {
        Ok(())
    }
}
