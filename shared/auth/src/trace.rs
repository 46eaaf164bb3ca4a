//! What the request observers record of a caller, in every dialect.

use std::sync::Arc;

use keyway_domain::access::Caller;
use keyway_domain::audit_context::{AuditContext, AuditFacts, ContextFacts};
use keyway_domain::keys::KeyId;
use keyway_domain::policy::{Action, Consequence};
use keyway_http::{Class, Context, Item, Operation, Subject, Trace};

/// The operation of a route with this action.
pub const fn operation(action: Action) -> Operation {
    Operation {
        name: action.as_str(),
        class: match action.consequence() {
            Consequence::Reads => Class::Read,
            Consequence::UsesKeys => Class::DataKey,
            Consequence::Changes => Class::Mutation,
        },
    }
}

/// The operation of a request for the caller's own identity, in any dialect. It needs no permission.
pub const WHO_CALLS: Operation = Operation {
    name: "sts:GetCallerIdentity",
    class: Class::Read,
};

/// The parts of a caller that are recorded.
struct Traced {
    principal: Arc<str>,
    is_known: bool,
    audit: Arc<AuditContext>,
}

/// The trace of the caller and of the operations on their behalf.
pub fn trace(caller: &Caller) -> Option<Box<dyn Trace>> {
    Some(Box::new(Traced {
        principal: caller.shared_principal(),
        is_known: caller.is_known(),
        audit: Arc::clone(caller.audit()),
    }))
}

impl Trace for Traced {
    fn subject(self: Box<Self>) -> Subject {
        let facts = self.audit.take();
        Subject {
            operation: None,
            principal: Some(self.principal),
            is_known: self.is_known,
            key_id: facts.key.map(|key| key.to_string()),
            key_version: facts.key_version,
            source_key: source(facts.source),
            resource: facts.resource,
            context: facts.context.map(context),
            refusal: facts.refusal,
            items: facts.items.into_iter().map(item).collect(),
        }
    }
}

fn item(facts: AuditFacts) -> Item {
    Item {
        key_id: facts.key.map(|key| key.to_string()),
        key_version: facts.key_version,
        source_key: source(facts.source),
        context: facts.context.map(context),
        error: facts.refusal,
    }
}

fn source(facts: Option<(KeyId, Option<u32>)>) -> Option<(String, Option<u32>)> {
    facts.map(|(key, version)| (key.to_string(), version))
}

fn context(facts: ContextFacts) -> Context {
    match facts {
        ContextFacts::Pairs(pairs) => Context::Pairs(pairs),
        ContextFacts::Opaque(length) => Context::Opaque(length),
    }
}
