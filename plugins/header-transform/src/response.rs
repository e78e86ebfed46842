//! What becomes of a response (KONG-SPEC 5).

use crate::config::{Config, Rule, RuleSet, Rules};
use crate::header_draft::HeaderDraft;
use crate::media;
use crate::member_rules::{Manner, MemberRules};
use crate::request::apply_paths;
use std::borrow::Cow;
use std::convert::Infallible;
use tollgate_kit::headers::HeaderMap;
use tollgate_kit::step::HeaderEdit;

/// What the head of a response comes to.
#[derive(Debug)]
pub struct Head {
    /// What has to be done to it.
    pub edits: Vec<HeaderEdit>,
    /// What is to be done with the body.
    pub body: BodyPlan,
}

/// What is to be done with a body.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// Nothing.
    Leave,
    /// It is to be transformed whole, by the sets of these numbers.
    Whole(Vec<usize>),
    /// Each of its events is to be transformed, by the sets of these numbers.
    Events(Vec<usize>),
}

/// Transforms the head by the sets whose number is `chosen`.
pub(crate) fn transform_head(
    config: &Config,
    chosen: impl Iterator<Item = usize>,
    response: &HeaderMap,
) -> Head {
    let status = response
        .first(":status")
        .and_then(|status| std::str::from_utf8(status).ok()?.parse::<u16>().ok());
    let mut headers = HeaderDraft::of(response);
    let mut bodies = Vec::new();
    for number in chosen {
        let Some(set) = config.sets.get(number) else {
            continue;
        };
        if !set.edits_responses()
            || !set.when.holds_for_status(status.unwrap_or_default())
            || !set.when.holds_for_type(headers.first("content-type"))
        {
            continue;
        }
        edit_headers(&set.response.headers, config.kong, &mut headers);
        if set.edits_response_bodies() {
            bodies.push(number);
        }
    }
    let bodiless = matches!(status, Some(100..200 | 204 | 304));
    let content_type = headers.first("content-type").unwrap_or_default();
    let body =
        if bodies.is_empty() || bodiless || !media::is_plain(headers.first("content-encoding")) {
            BodyPlan::Leave
        } else if media::is_json(content_type) {
            BodyPlan::Whole(bodies)
        } else if config.sse && media::is_event_stream(content_type) {
            BodyPlan::Events(bodies)
        } else {
            BodyPlan::Leave
        };
    Head {
        edits: headers.edits(),
        body,
    }
}

/// Whether a header is there is judged by the response as it came; what is written is there at once (KONG-SPEC 5.2).
fn edit_headers(rules: &Rules<Vec<u8>, String>, kong: bool, headers: &mut HeaderDraft<'_>) {
    if rules.is_empty() {
        return;
    }
    let before = headers.clone();
    for name in &rules.remove {
        headers.remove(name);
    }
    for Rule { name, value: new } in &rules.rename {
        let values: Vec<Vec<u8>> = before
            .values(name)
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect();
        if values.is_empty() {
            continue;
        }
        let same = name.eq_ignore_ascii_case(new);
        // Kong sets it under its new spelling and then clears it under the old one, which is the same.
        if !(same && kong) {
            headers.set(new, values);
        }
        if !same || kong {
            headers.remove(name);
        }
    }
    for Rule { name, value } in &rules.replace {
        if before.has(name) {
            headers.set(name, vec![value.clone()]);
        }
    }
    for Rule { name, value } in &rules.add {
        if !before.has(name) {
            headers.set(name, vec![value.clone()]);
        }
    }
    for Rule { name, value } in &rules.append {
        headers.append(name, value.clone());
    }
}

/// Transforms a JSON body by the sets of these numbers; `None` when it stays as it is.
pub(crate) fn transform_body(config: &Config, sets: &[usize], body: &[u8]) -> Option<Vec<u8>> {
    let mut current = Cow::Borrowed(body);
    for set in sets.iter().filter_map(|number| config.sets.get(*number)) {
        if let Some(new) = edit_members(set, config.kong, &current) {
            current = Cow::Owned(new);
        }
        let render = &mut |_: &_| Ok::<_, Infallible>(Vec::new());
        if let Ok(Some(new)) = apply_paths(&set.response_json, &current, render) {
            current = Cow::Owned(new);
        }
    }
    match current {
        Cow::Owned(new) => Some(new),
        Cow::Borrowed(_) => None,
    }
}

fn edit_members(set: &RuleSet, kong: bool, body: &[u8]) -> Option<Vec<u8>> {
    fn pairs(rules: &[Rule<Vec<u8>>]) -> Vec<(&[u8], Cow<'_, [u8]>)> {
        rules
            .iter()
            .map(|rule| (rule.name.as_bytes(), Cow::Borrowed(rule.value.as_slice())))
            .collect()
    }
    let rules = &set.response.json;
    if rules.is_empty() {
        return None;
    }
    let rename = rules.rename.iter();
    let members = MemberRules {
        remove: rules.remove.iter().map(String::as_bytes).collect(),
        rename: rename
            .map(|rule| (rule.name.as_bytes(), Cow::Borrowed(rule.value.as_bytes())))
            .collect(),
        replace: pairs(&rules.replace),
        add: pairs(&rules.add),
        append: pairs(&rules.append),
    };
    let manner = if kong {
        Manner::KongResponse
    } else {
        Manner::Tollgate
    };
    members.apply(body, manner).ok().flatten()
}
