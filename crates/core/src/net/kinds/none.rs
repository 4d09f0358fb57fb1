//! No network: a loopback interface and nothing else.

use std::fmt;

use super::{ContainerSide, NetworkKind, Rows};
use crate::net::inside;
use nsrs_base::error::Result;

#[derive(Debug)]
pub struct NoNetwork;

impl NetworkKind for NoNetwork {
    fn name(&self) -> &'static str {
        "none"
    }

    fn is_connected(&self) -> bool {
        false
    }

    fn explain(&self, rows: &mut dyn Rows) -> fmt::Result {
        rows.prose("network", "none: a loopback interface and nothing else")
    }

    fn can_be_prewarmed(&self) -> bool {
        true
    }

    fn inside(&self, _side: &dyn ContainerSide) -> Result<()> {
        inside::loopback_up()
    }
}
