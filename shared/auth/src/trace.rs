//! What those who are told of requests learn of a caller of the domain, whichever dialect they called.

use keyway_domain::access::Caller;
use keyway_domain::keys::KeyId;
use keyway_domain::policy::{Action, Consequence};
use keyway_domain::trail::{Noted, NotedContext};
use keyway_http::{Class, Context, Item, Operation, Subject, Trace};

/// What a route of this action is for.
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

/// What a request is for that asks who calls, in whatever dialect. It needs no permission.
pub const WHO_CALLS: Operation = Operation {
    name: "sts:GetCallerIdentity",
    class: Class::Read,
};

struct Traced(Caller);

/// What remains of the caller, and of what the operations do for them.
pub fn trace(caller: &Caller) -> Option<Box<dyn Trace>> {
    Some(Box::new(Traced(caller.clone())))
}

impl Trace for Traced {
    fn subject(self: Box<Self>) -> Subject {
        let noted = self.0.trail().take();
        Subject {
            operation: None,
            principal: Some(self.0.shared_principal()),
            is_known: self.0.is_known(),
            key_id: noted.key.map(|key| key.to_string()),
            key_version: noted.key_version,
            source_key: source(noted.source),
            resource: noted.resource,
            context: noted.context.map(context),
            refusal: noted.refusal,
            items: noted.items.into_iter().map(item).collect(),
        }
    }
}

fn item(noted: Noted) -> Item {
    Item {
        key_id: noted.key.map(|key| key.to_string()),
        key_version: noted.key_version,
        source_key: source(noted.source),
        context: noted.context.map(context),
        error: noted.refusal,
    }
}

fn source(noted: Option<(KeyId, Option<u32>)>) -> Option<(String, Option<u32>)> {
    noted.map(|(key, version)| (key.to_string(), version))
}

fn context(noted: NotedContext) -> Context {
    match noted {
        NotedContext::Pairs(pairs) => Context::Pairs(pairs),
        NotedContext::Opaque(length) => Context::Opaque(length),
    }
}
