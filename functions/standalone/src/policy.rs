//! `keyway policy check`.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use keyway_domain::access::AccountId;
use keyway_domain::policy::{Action, Asked, Decision, Policy};
use serde::Serialize;

use crate::access_key::policy_file;
use crate::migration::Output;
use crate::{explain, print};

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say whether a policy is valid, and what it decides; status 1 when it is not, or denies
    Check(Check),
}

#[derive(Args)]
pub(crate) struct Check {
    /// kms-admin, kms-key-administrator, kms-key-user, kms-auditor, or the file of an IAM-style policy
    #[arg(long, value_name = "NAME|FILE")]
    policy: String,

    /// Also say whether this action is allowed, such as kms:Decrypt
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,

    /// On what: arn:aws:kms:::key/ID or a key's id, alias/NAME, arn:aws:s3:::NAME or a bucket's name, * for the service;
    /// without it, whether there can be a key or bucket on which it is allowed
    #[arg(long, value_name = "RESOURCE", requires = "action")]
    resource: Option<String>,

    /// The deployment's account; resources of other accounts then do not count
    #[arg(long, env = "KEYWAY_AWS_ACCOUNT_ID", value_name = "ACCOUNT")]
    aws_account_id: Option<AccountId>,

    /// The deployment's region; resources of other regions then do not count
    #[arg(long, env = "KEYWAY_AWS_REGION", value_name = "REGION")]
    aws_region: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Check {
    /// The policy as the deployment would apply it, or what is wrong with it.
    fn policy(&self) -> anyhow::Result<Result<Policy, String>> {
        if let Some(policy) = Policy::canned(&self.policy) {
            return Ok(Ok(policy));
        }
        let parsed = Policy::parse(&policy_file(&self.policy)?);
        let parsed = parsed.map_err(|error| explain(error).to_string());
        let (account, region) = (&self.aws_account_id, &self.aws_region);
        Ok(parsed.and_then(|policy| match account.as_ref() {
            None if region.is_none() => Ok(policy),
            account => policy.here(
                account.map_or(AccountId::DEFAULT, AccountId::as_str),
                region.as_deref(),
            ),
        }))
    }
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    /// Why it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statements: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Told>,
}

#[derive(Serialize)]
struct Told {
    action: &'static str,
    allowed: bool,
    /// The number of the statement that decided, from 1; null when no statement applies.
    statement: Option<usize>,
    sid: Option<String>,
}

/// Returns whether the policy is valid, and allows the action if one was given.
pub(crate) fn run(command: PolicyCommand) -> anyhow::Result<bool> {
    let PolicyCommand::Check(check) = command;
    let asked = match &check.action {
        None => None,
        Some(name) => {
            let action = Action::named(name).ok_or_else(|| {
                anyhow!("--action: there is no such action; they are named as policies name them, such as kms:Decrypt")
            })?;
            let on = Asked::parse(action, check.resource.as_deref()).map_err(explain)?;
            Some((action, on))
        }
    };
    let checked = match check.policy()? {
        Err(error) => Checked {
            valid: false,
            reason: Some(error),
            statements: None,
            decision: None,
        },
        Ok(policy) => Checked {
            valid: true,
            reason: None,
            statements: Some(policy.statements()),
            decision: asked.map(|(action, on)| told(action, policy.decide(action, &on))),
        },
    };
    match check.output {
        Output::Json => print(&serde_json::to_string(&checked)?),
        Output::Text => print(&checked.text()),
    }
    let is_allowed = checked.decision.is_none_or(|told| told.allowed);
    Ok(checked.valid && is_allowed)
}

fn told(action: Action, decision: Decision) -> Told {
    let Decision { allowed, by } = decision;
    let (statement, sid) = by.map_or((None, None), |by| (Some(by.number), by.sid));
    Told {
        action: action.as_str(),
        allowed,
        statement,
        sid,
    }
}

impl Checked {
    fn text(&self) -> String {
        if let Some(reason) = &self.reason {
            return format!("invalid: {reason}");
        }
        let Some(told) = &self.decision else {
            let count = self.statements.unwrap_or_default();
            return format!("valid: {count} statements");
        };
        let word = if told.allowed { "allowed" } else { "denied" };
        let sid = told.sid.as_ref().map(|sid| format!(" ({sid:?})"));
        match told.statement {
            Some(number) => format!("{word} by statement {number}{}", sid.unwrap_or_default()),
            None => format!("{word}: no statement allows it"),
        }
    }
}
