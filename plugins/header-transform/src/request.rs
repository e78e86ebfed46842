//! What becomes of a request (KONG-SPEC 4.2): the path, the method, headers, the body and the query, in this order.

use crate::arguments::{Arguments, Form};
use crate::cjson;
use crate::condition::RequestFacts;
use crate::config::{
    Config, JsonChange, JsonRules, JsonValue, Rule, RuleSet, Rules, is_header_value,
};
use crate::header_draft::HeaderDraft;
use crate::json_path::{self, Change};
use crate::media::{self, BodyKind};
use crate::member_rules::{Manner, MemberRules, Scalar};
use crate::multipart_form::MultipartForm;
use crate::sources::RequestSources;
use crate::template::{EvalError, Template};
use crate::uri;
use std::borrow::Cow;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::host::Host;
use tollgate_kit::identity::Identity;
use tollgate_kit::json::{self, Kind, Value};
use tollgate_kit::step::RequestEdits;

/// A request as it came.
#[derive(Debug)]
pub struct Request {
    /// The head.
    pub headers: HeaderMap,
    /// The path, without the query; empty where no rule asks for it.
    pub path: Vec<u8>,
    /// The query; `None` without a `?`.
    pub query: Option<Vec<u8>>,
    /// Who the client is, where a rule asks.
    pub identity: Option<Identity>,
}

/// What is known of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'b> {
    /// Nothing: no rule asks for it, or it can't be read. It stays as it is.
    Unread,
    /// There is none, and none can be made.
    Absent,
    /// There is none, and rules may make one.
    Empty,
    /// All of it; at least one byte.
    Whole(&'b [u8]),
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Transformed {
    /// What has to be done to it.
    pub edits: RequestEdits,
    /// Whether rules would have made a body where none can be made.
    pub lacks_body: bool,
}

/// Why a request can't be transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Occurs when a template fails.
    Template(EvalError),
    /// Occurs when a rule fails on this request, as Kong's would.
    Rule,
    /// Occurs when what the client sent would break out of the place that a template puts it in.
    Value,
}

impl From<EvalError> for Refusal {
    fn from(error: EvalError) -> Refusal {
        Refusal::Template(error)
    }
}

impl Request {
    /// What conditions judge it by.
    #[must_use]
    pub fn facts<'f>(&'f self, model: Option<&'f [u8]>) -> RequestFacts<'f> {
        RequestFacts {
            headers: &self.headers,
            path: &self.path,
            identity: self.identity.as_ref(),
            model,
        }
    }

    /// Whether a set of rules may need the body.
    #[must_use]
    pub(crate) fn needs_body(&self, set: &RuleSet) -> bool {
        if !media::is_plain(self.headers.first("content-encoding"))
            || !set.when.may_hold(&self.facts(None))
        {
            return false;
        }
        let content_type = self.headers.first("content-type").unwrap_or_default();
        let kind = BodyKind::of(content_type);
        let json = kind == Some(BodyKind::Json) || media::is_json(content_type);
        let rules = &set.request;
        (!set.when.models.is_empty() && json)
            || (!rules.body.is_empty() && (kind.is_some() || sets_content_type(set)))
            || (!set.request_json.0.is_empty() && (json || sets_content_type(set)))
            || (rules
                .method
                .as_ref()
                .is_some_and(|method| method.moves_form())
                && kind == Some(BodyKind::Form))
    }
}

/// Whether header rules may give the request another content type.
fn sets_content_type(set: &RuleSet) -> bool {
    let named = |name: &str| name.eq_ignore_ascii_case("content-type");
    let headers = &set.request.headers;
    headers.rename.iter().any(|rule| named(&rule.value))
        || [&headers.replace, &headers.add, &headers.append]
            .into_iter()
            .flatten()
            .any(|rule| named(&rule.name))
}

/// The `model` of a JSON body.
#[must_use]
pub fn model(body: &[u8]) -> Option<Vec<u8>> {
    let value = Value::parse(body).ok()?;
    Some(value.member("model")?.as_bytes()?.into_owned())
}

/// The request in the making.
struct Draft<'a> {
    headers: HeaderDraft<'a>,
    method: Option<String>,
    path: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    query: Cow<'a, [u8]>,
    body: Option<Vec<u8>>,
    lacks_body: bool,
}

/// Transforms a request by the sets whose number is `chosen`.
///
/// # Errors
/// When it can't be sent as the rules would have it.
pub(crate) fn transform(
    config: &Config,
    chosen: impl Iterator<Item = usize>,
    request: &Request,
    payload: Payload<'_>,
    host: &dyn Host,
) -> Result<Transformed, Refusal> {
    let mut draft = Draft {
        headers: HeaderDraft::of(&request.headers),
        method: None,
        path: None,
        authority: None,
        query: Cow::Borrowed(request.query.as_deref().unwrap_or_default()),
        body: None,
        lacks_body: false,
    };
    for set in chosen.filter_map(|number| config.sets.get(number)) {
        if set.edits_requests() {
            let sources = RequestSources::new(
                host,
                request,
                set,
                config.kong,
                draft.headers.clone(),
                Some(&draft.query),
            );
            Pass {
                set,
                kong: config.kong,
                payload,
                sources: &sources,
            }
            .run(&mut draft)?;
        }
    }
    let query = (*draft.query != *request.query.as_deref().unwrap_or_default())
        .then(|| draft.query.into_owned());
    let mut edits = RequestEdits {
        method: draft.method.map(String::into_bytes),
        path: draft.path,
        authority: draft.authority,
        headers: draft.headers.edits(),
        query,
        body: draft.body,
        identity: None,
    };
    second_question_mark(&mut edits, request);
    Ok(Transformed {
        edits,
        lacks_body: draft.lacks_body,
    })
}

/// Kong leaves a `?` in its new path and adds the query behind a second one. What is behind the first is query to everybody else.
fn second_question_mark(edits: &mut RequestEdits, request: &Request) {
    let Some(path) = &mut edits.path else { return };
    let Some(at) = path.iter().position(|&byte| byte == b'?') else {
        return;
    };
    let mut query = path.split_off(at);
    query.remove(0);
    let own = edits.query.as_ref().or(request.query.as_ref());
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        query.push(b'?');
        query.extend_from_slice(own);
    }
    edits.query = Some(query);
}

/// One set of rules on its way over a request.
struct Pass<'p, 'a> {
    set: &'a RuleSet,
    kong: bool,
    payload: Payload<'p>,
    sources: &'p RequestSources<'a>,
}

impl<'a> Pass<'_, 'a> {
    fn run(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        self.uri(draft)?;
        self.method(draft)?;
        self.headers(draft)?;
        self.sources.headers_done(&draft.headers);
        self.body(draft)?;
        self.query(draft)
    }

    fn render(&self, template: &Template) -> Result<Vec<u8>, Refusal> {
        Ok(template.render(self.sources)?)
    }

    fn uri(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        let Some(template) = &self.set.request.uri else {
            return Ok(());
        };
        let path = uri::escaped(&self.render(template)?, self.kong);
        draft.path = Some(path.map_err(|error| match error {
            uri::UriError::NoPath => Refusal::Rule,
            uri::UriError::DotSegment => Refusal::Value,
        })?);
        Ok(())
    }

    fn method(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        let Some(method) = &self.set.request.method else {
            return Ok(());
        };
        if method.unknown {
            return Err(Refusal::Rule);
        }
        draft.method = Some(method.name.clone());
        let content_type = draft.headers.first("content-type").unwrap_or_default();
        if !method.moves_form() || BodyKind::of(content_type) != Some(BodyKind::Form) {
            return Ok(());
        }
        let form = match (&draft.body, self.payload) {
            (Some(body), _) => body.clone(),
            (None, Payload::Whole(body)) => body.to_vec(),
            (None, Payload::Absent | Payload::Empty) => Vec::new(),
            (None, Payload::Unread) => return Ok(()),
        };
        let form = Arguments::read(&form, self.kong);
        let mut query = Arguments::read(&draft.query, self.kong);
        let clashes = |name: &[u8]| query.has(name) && form.count(name) > 1;
        if self.kong && form.iter().any(|(name, _)| clashes(name)) {
            return Err(Refusal::Rule);
        }
        for (name, value) in form.iter() {
            query.append(name, value);
        }
        let text = query.to_text(self.form());
        draft.query = Cow::Owned(text);
        self.sources.query_changed(&draft.query);
        Ok(())
    }

    /// How a changed query is written.
    fn form(&self) -> Form {
        if self.kong {
            Form::Sorted
        } else {
            Form::AsTheyCame
        }
    }

    fn headers(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        let Rules {
            remove,
            rename,
            replace,
            add,
            append,
        } = &self.set.request.headers;
        let headers = &mut draft.headers;
        for name in remove {
            headers.remove(name);
        }
        for Rule { name, value: new } in rename {
            if self.kong && !name.eq_ignore_ascii_case(new) {
                headers.rename(name, &new.to_ascii_lowercase());
            } else {
                headers.rename(name, new);
            }
        }
        for Rule { name, value } in replace {
            let text = self.render(value)?;
            if !value.is_empty() && headers.has(name) {
                headers.set(name, vec![header_value(text)?]);
            }
        }
        if let Some(authority) = &self.set.request.authority {
            let text = self.render(authority)?;
            if !is_authority(&text) {
                return Err(Refusal::Value);
            }
            draft.authority = Some(text);
        }
        for Rule { name, value } in add {
            let text = self.render(value)?;
            if !value.is_empty() && !headers.has(name) {
                headers.set(name, vec![header_value(text)?]);
            }
        }
        for Rule { name, value } in append {
            let text = self.render(value)?;
            if !value.is_empty() {
                headers.append(name, header_value(text)?);
            }
        }
        Ok(())
    }

    fn query(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        let rules = &self.set.request.query;
        if rules.is_empty() {
            return Ok(());
        }
        let mut query = Arguments::read(&draft.query, self.kong);
        self.arguments(rules, &mut query)?;
        if self.kong || query.is_changed() {
            draft.query = Cow::Owned(query.to_text(self.form()));
        }
        Ok(())
    }

    /// Applies rules to arguments. Whether one of them applied, by Kong's reckoning.
    fn arguments(
        &self,
        rules: &Rules<Template>,
        arguments: &mut Arguments<'_>,
    ) -> Result<bool, Refusal> {
        let mut applied = !rules.remove.is_empty() || !rules.append.is_empty();
        for name in &rules.remove {
            arguments.remove(name.as_bytes());
        }
        for Rule { name, value } in &rules.rename {
            applied |= arguments.rename(name.as_bytes(), &self.render(value)?);
        }
        for Rule { name, value } in &rules.replace {
            applied |= arguments.replace(name.as_bytes(), &self.render(value)?);
        }
        for Rule { name, value } in &rules.add {
            let text = self.render(value)?;
            if !arguments.has(name.as_bytes()) {
                arguments.append(name.as_bytes(), Some(&text));
                applied = true;
            }
        }
        for Rule { name, value } in &rules.append {
            if self.kong {
                arguments.drop_flag(name.as_bytes());
            }
            arguments.append(name.as_bytes(), Some(&self.render(value)?));
        }
        Ok(applied)
    }

    fn body(&self, draft: &mut Draft<'a>) -> Result<(), Refusal> {
        if !self.set.edits_request_bodies()
            || self.payload == Payload::Unread
            || !media::is_plain(draft.headers.first("content-encoding"))
        {
            return Ok(());
        }
        let content_type = draft
            .headers
            .first("content-type")
            .unwrap_or_default()
            .to_vec();
        let old = match (&draft.body, self.payload) {
            (Some(body), _) => Cow::Borrowed(body.as_slice()),
            (None, Payload::Whole(body)) => Cow::Borrowed(body),
            (None, _) => Cow::Borrowed(&b""[..]),
        };
        let kind = BodyKind::of(&content_type);
        let rules = &self.set.request.body;
        let mut new = match kind {
            Some(_) if rules.is_empty() => None,
            Some(BodyKind::Json) => self.json(rules, &old)?,
            Some(BodyKind::Multipart) => self.multipart(rules, &content_type, &old)?,
            Some(BodyKind::Form) => self.form_body(rules, &old)?,
            None => None,
        };
        if kind == Some(BodyKind::Json) || media::is_json(&content_type) {
            let current = new.as_deref().unwrap_or(&old);
            if let Some(changed) = self.json_paths(&self.set.request_json, current)? {
                new = Some(changed);
            }
        }
        let makes_one = old.is_empty() && draft.body.is_none();
        match new {
            Some(_) if makes_one && self.payload == Payload::Absent => draft.lacks_body = true,
            Some(new) => draft.body = Some(new),
            None => {}
        }
        Ok(())
    }

    fn form_body(&self, rules: &Rules<Template>, old: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let mut form = Arguments::read(old, self.kong);
        let applied = self.arguments(rules, &mut form)?;
        let (written, form) = if self.kong {
            (applied, form.to_text(Form::Grouped))
        } else {
            (form.is_changed(), form.to_text(Form::AsTheyCame))
        };
        Ok((written && *form != *old).then_some(form))
    }

    fn multipart(
        &self,
        rules: &Rules<Template>,
        content_type: &[u8],
        old: &[u8],
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(mut form) = MultipartForm::read(content_type, old) else {
            return Ok(None);
        };
        for Rule { name, value } in &rules.rename {
            form.rename(name.as_bytes(), &self.render(value)?);
        }
        for name in &rules.remove {
            form.remove(name.as_bytes(), self.kong);
        }
        for Rule { name, value } in &rules.replace {
            let text = self.render(value)?;
            if !form.can_hold(&text) {
                return Err(Refusal::Value);
            }
            form.replace(name.as_bytes(), &text);
        }
        for Rule { name, value } in &rules.add {
            let text = self.render(value)?;
            if !form.can_hold(&text) {
                return Err(Refusal::Value);
            }
            form.add(name.as_bytes(), &text);
        }
        Ok(form.into_text())
    }

    fn json(&self, rules: &Rules<Template>, old: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let quoted = |rules: &'a [Rule<Template>]| {
            rules
                .iter()
                .map(|rule| {
                    let mut text = Vec::new();
                    if self.kong {
                        cjson::write_string(&self.render(&rule.value)?, &mut text);
                    } else {
                        json::quote(&self.render(&rule.value)?, &mut text);
                    }
                    Ok((rule.name.as_bytes(), Cow::Owned(text)))
                })
                .collect::<Result<Vec<_>, Refusal>>()
        };
        let body = &self.set.request.body;
        let rename = rules.rename.iter().map(|rule| {
            let new = self.render(&rule.value)?;
            Ok((rule.name.as_bytes(), Cow::Owned(new)))
        });
        let members = MemberRules {
            remove: rules.remove.iter().map(String::as_bytes).collect(),
            rename: rename.collect::<Result<Vec<_>, Refusal>>()?,
            replace: quoted(&body.replace)?,
            add: quoted(&body.add)?,
            append: quoted(&body.append)?,
        };
        let manner = if self.kong {
            Manner::KongRequest
        } else {
            Manner::Tollgate
        };
        if old.is_empty() {
            return Ok(members.made_from_nothing(manner));
        }
        members.apply(old, manner).map_err(|Scalar| Refusal::Rule)
    }

    fn json_paths(&self, rules: &JsonRules, old: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        if rules.0.is_empty() || old.is_empty() {
            return Ok(None);
        }
        apply_paths(rules, old, &mut |template| {
            let mut text = Vec::new();
            json::quote(&self.render(template)?, &mut text);
            Ok(text)
        })
    }
}

/// Applies rules by path to a JSON text; `None` when it stays as it is. `render` writes a template as a JSON string.
pub(crate) fn apply_paths<E>(
    rules: &JsonRules,
    old: &[u8],
    render: &mut dyn FnMut(&Template) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let mut current = Cow::Borrowed(old);
    for rule in &rules.0 {
        let mut text = |value: &JsonValue| {
            Ok(match value {
                JsonValue::Literal(text) => text.clone(),
                JsonValue::Template(template) => render(template)?,
            })
        };
        let change = match &rule.change {
            JsonChange::Remove => Change::Remove,
            JsonChange::Set(value) => Change::Set(Cow::Owned(text(value)?)),
            JsonChange::SetIfAbsent(value) => Change::SetIfAbsent(Cow::Owned(text(value)?)),
            JsonChange::AtMost(number) => Change::AtMost(number),
            JsonChange::AtLeast(number) => Change::AtLeast(number),
        };
        let Ok(value) = Value::parse(&current) else {
            return Ok(None);
        };
        if !matches!(value.kind(), Kind::Object | Kind::Array) {
            return Ok(None);
        }
        if let Some(new) = json_path::changed(value, &rule.path, &change) {
            current = Cow::Owned(new);
        }
    }
    Ok(match current {
        Cow::Owned(new) => Some(new),
        Cow::Borrowed(_) => None,
    })
}

/// A rendered value, if it can be sent as a header's.
fn header_value(text: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    if is_header_value(&text) {
        Ok(text)
    } else {
        Err(Refusal::Value)
    }
}

/// Whether a text can be a `Host` (RFC 3986 section 3.2).
fn is_authority(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte))
}
