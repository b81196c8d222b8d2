//! What a request acts on: a project, a domain, the system, or nothing.
use serde::{Deserialize, Serialize};

base::id_type! {
    /// A user, local or federated.
    UserId,
    /// A project, which owns most resources.
    ProjectId,
    /// A domain, which owns projects and users.
    DomainId,
    /// A role.
    RoleId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRef {
    pub id: DomainId,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRef {
    pub id: ProjectId,
    pub name: String,
    pub domain: DomainRef,
}

/// The scope of an authenticated request, with the names a token response shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Unscoped,
    Project(ProjectRef),
    Domain(DomainRef),
    System,
}

impl Scope {
    pub fn project(&self) -> Option<&ProjectRef> {
        match self {
            Self::Project(p) => Some(p),
            Self::Unscoped | Self::Domain(_) | Self::System => None,
        }
    }
    /// The domain of a domain scope; a project's own domain is `project().domain`.
    pub fn domain(&self) -> Option<&DomainRef> {
        match self {
            Self::Domain(d) => Some(d),
            Self::Unscoped | Self::Project(_) | Self::System => None,
        }
    }
    pub fn is_system(&self) -> bool {
        *self == Self::System
    }
}
