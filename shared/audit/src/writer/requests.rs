//! The events of requests: this is how the writer observes them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::ready;
use keyway_domain::audit::{Event, EventItem};
use keyway_http::{Answered, Class, Context, Item, Observer, Outcome, Unrecorded};

use super::{AuditWriter, Contexts, Flushing, Said, Strictness};

/// The most bytes that the items of one event have, unless a single item is larger. Log drivers cut lines longer than
/// 16 KiB.
const ITEMS_BYTES: usize = 12 << 10;
/// The longest path in an event, in bytes: the client chooses the path.
const LONGEST_PATH: usize = 300;

/// The parts of an encryption context that an event records.
#[derive(Default)]
struct ToldContext<'a> {
    names: Option<Vec<Cow<'a, str>>>,
    values: Option<BTreeMap<String, String>>,
    bytes: Option<usize>,
}

impl Observer for AuditWriter {
    fn began(&self, _: &'static str) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn may_proceed(&self, _: Class) -> Outcome<'_> {
        let is_fit = self.is_proven.load(Ordering::Relaxed)
            && !self.output_failed.load(Ordering::Relaxed)
            && !self.table_failed.load(Ordering::Relaxed);
        if is_fit || self.settings.strictness == Strictness::BestEffort {
            return ready(Ok(())).left_future();
        }
        self.prove().boxed().right_future()
    }

    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        let said = self.note(told);
        let is_strict = self.settings.strictness == Strictness::Required;
        let is_urgent = told.subject.is_known
            && (told.operation.class == Class::Mutation || told.error.is_some());
        let in_flight = InFlight(&self.in_flight);
        async move {
            let _put_out = PutOut(self, said);
            if in_flight.are_others() {
                // Other requests that are about to be answered queue their events meanwhile, so that one write serves all.
                tokio::task::yield_now().await;
            }
            let is_output = self.put_out_together(said).await;
            let flushed = if is_urgent {
                self.flush(said).await.map_err(|_| Unrecorded)
            } else if self.settings.flushing == Flushing::ByRequest && self.is_due() {
                // A failure here concerns requests that are answered already. The next request is refused instead.
                self.flush(None).await.or(Ok(()))
            } else {
                Ok(())
            };
            if !is_strict {
                return Ok(());
            }
            if is_output { flushed } else { Err(Unrecorded) }
        }
        .boxed()
        .right_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        let _in_flight = InFlight(&self.in_flight);
        self.write_out(self.note(told));
    }
}

impl AuditWriter {
    /// Queues the event of a request, or several events when its items are too long for one. Returns the last.
    fn note(&self, told: &Answered<'_>) -> Said {
        let outcome = told.error.unwrap_or("answered");
        let unauthenticated = (!told.subject.is_known).then_some(outcome);
        let items = &told.subject.items;
        if items.is_empty() {
            return self.add(&self.event(told), unauthenticated);
        }
        let mut said = None;
        let mut first = 0;
        while let Some(rest) = items.get(first..).filter(|rest| !rest.is_empty()) {
            let (mut bytes, mut some) = (0, Vec::new());
            for item in rest {
                let item = self.item(item);
                bytes += serde_json::to_string(&item).map_or(0, |text| text.len());
                if bytes > ITEMS_BYTES && !some.is_empty() {
                    break;
                }
                some.push(item);
            }
            let next = first + some.len();
            let number = |index| u64::try_from(index).unwrap_or(u64::MAX);
            let event = Event {
                items: Some(some),
                first_item: Some(number(first)),
                item_count: Some(number(items.len())),
                ..self.event(told)
            };
            // If one event cannot be encoded, the request is not recorded, whatever happens to the others.
            said = Some(self.add(&event, unauthenticated)?);
            first = next;
        }
        said
    }

    fn item<'a>(&self, item: &'a Item) -> EventItem<'a> {
        let context = self.context(item.context.as_ref());
        EventItem {
            key_id: item.key_id.as_deref().map(Cow::Borrowed),
            key_version: item.key_version,
            source_key_id: (item.source_key.as_ref()).map(|(key, _)| Cow::Borrowed(key.as_str())),
            source_key_version: (item.source_key.as_ref()).and_then(|(_, version)| *version),
            context: context.names,
            context_values: context.values,
            context_bytes: context.bytes,
            error: item.error.map(Cow::Borrowed),
        }
    }

    /// The parts of an encryption context that an event records.
    fn context<'a>(&self, context: Option<&'a Context>) -> ToldContext<'a> {
        match context {
            Some(Context::Pairs(pairs)) => ToldContext {
                names: Some(pairs.iter().map(|(name, _)| name.into()).collect()),
                values: (self.settings.contexts == Contexts::Values)
                    .then(|| pairs.iter().cloned().collect()),
                bytes: None,
            },
            Some(Context::Opaque(bytes)) => ToldContext {
                bytes: Some(*bytes),
                ..ToldContext::default()
            },
            None => ToldContext::default(),
        }
    }

    fn event<'a>(&self, told: &'a Answered<'a>) -> Event<'a> {
        let subject = told.subject;
        let context = self.context(subject.context.as_ref());
        let path = shortened(told.raw_path);
        let borrowed = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Event {
            request_id: Some(Cow::Borrowed(told.request_id)),
            dialect: Cow::Borrowed(told.dialect),
            operation: Cow::Borrowed(told.operation.name),
            class: Some(Cow::Borrowed(told.operation.class.as_str())),
            method: Some(Cow::Borrowed(shortened(told.method.as_str()))),
            path: Some(Cow::Borrowed(path)),
            // Without parameters, the path has it already.
            route: (told.route.filter(|route| !path.ends_with(route))).map(Cow::Borrowed),
            principal: subject.principal.as_deref().map(Cow::Borrowed),
            key_id: borrowed(&subject.key_id),
            key_version: subject.key_version,
            source_key_id: subject
                .source_key
                .as_ref()
                .map(|(key, _)| Cow::Borrowed(key.as_str())),
            source_key_version: (subject.source_key.as_ref()).and_then(|(_, version)| *version),
            resource: borrowed(&subject.resource),
            context: context.names,
            context_values: context.values,
            context_bytes: context.bytes,
            address: Some(Cow::Owned(address(told.address))),
            status: Some(told.status.as_u16()),
            duration_us: Some(u64::try_from(told.elapsed.as_micros()).unwrap_or(u64::MAX)),
            error: told.error.map(Cow::Borrowed),
            ..Event::default()
        }
    }
}

/// Writes the event out when the request is dropped before its answer.
struct PutOut<'a>(&'a AuditWriter, Said);

impl Drop for PutOut<'_> {
    fn drop(&mut self) {
        self.0.write_out(self.1);
    }
}

/// A request from its beginning until it is answered or abandoned.
struct InFlight<'a>(&'a AtomicUsize);

impl InFlight<'_> {
    fn are_others(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An address as text. `Display` of an IPv4 address takes half as long as a whole event.
fn address(address: IpAddr) -> String {
    const LONGEST: usize = "255.255.255.255".len();
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity(LONGEST);
    for (at, number) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(number));
    }
    text
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_PATH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
