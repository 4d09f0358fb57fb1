//! A call resolved against this host: the facts that its plan depends on are read, and nothing is touched.

use std::rc::Rc;

use nsrs_base::error::{Act, During, Error, Result};
use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;

use super::images::{ImageCache, Leases};
use super::preflight;
use super::run_directory::RunDirectory;
use crate::net::link;
use crate::net::transport::Netlink;
use crate::plan::{self, Plan};
use crate::spec::{self, Spec};

/// A request, resolved, with what must be held for it.
#[derive(Debug)]
pub struct Resolved {
    /// What the container is to be, with every default filled in.
    pub plan: Rc<Plan>,
    /// Locks on the layers of its image; empty without an image.
    pub leases: Leases,
}

/// Resolves one request after another, and remembers what doesn't change in between.
#[derive(Debug)]
pub struct Resolver {
    host: Host,
    images: ImageCache,
}

impl Resolver {
    /// A resolver that knows the host, and no image yet.
    #[must_use]
    pub fn probe() -> Resolver {
        Resolver { host: Host::probe(), images: ImageCache::empty() }
    }

    /// The host that requests are resolved against.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Turns the options of a call into a plan for this host, and finds the image.
    ///
    /// # Errors
    /// Every problem of the call.
    pub fn resolve(&mut self, spec: &Spec) -> Result<Resolved, Vec<Error>> {
        let tree = if spec.is_on_host_tree() { HostTree::read()? } else { HostTree::default() };
        let (image, missing) = match self.images.find(spec, &self.host) {
            Ok(image) => (image, None),
            Err(error) => (None, Some(error)),
        };
        let facts = image.as_ref().map(|(facts, _)| facts);
        self.look_for_a_route(spec);
        let (plan, mut problems) = plan::resolve(spec, &self.host, &tree, facts);
        problems.extend(missing.map(|error| error.during(Act::Image)));
        problems.extend(preflight::check(&plan.sandbox));
        problems.extend(plan.sandbox.network.kind().check(&RunDirectory::path(&self.host)));
        let plan = Rc::new(problems.finish(plan).during(Act::Resolve)?);
        Ok(Resolved { plan, leases: image.map(|(_, leases)| leases).unwrap_or_default() })
    }

    /// Looks again whether a default route leads out: the one fact of the host that may well change while a process lives.
    /// Where the kernel doesn't tell, pasta shall.
    fn look_for_a_route(&mut self, spec: &Spec) {
        if self.host.pasta.is_ok() && spec.network.kind.is_none() {
            let found = Netlink::route().and_then(|mut netlink| link::leads_outside(&mut netlink));
            self.host.leads_outside = found.unwrap_or(true);
        }
    }
}

/// Resolves the plan of one call, given as the JSON of a [`Spec`].
///
/// # Errors
/// Every problem of the call.
pub fn explain(json: &str) -> Result<Plan, Vec<Error>> {
    let spec = spec::parse(json).during(Act::Resolve)?;
    Resolver::probe().resolve(&spec).map(|resolved| Rc::unwrap_or_clone(resolved.plan))
}
