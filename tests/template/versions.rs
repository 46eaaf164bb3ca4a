//! The versions of the functions: what serves, what a deployment publishes, and how it goes back.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::deployments::{Deployment, arn_of, deployments, function_of_alias, reference, released};

const RELEASE: &str = "0.1.0 0123456789ab 0123456789ab";

/// The resources of the deployment's functions that serve. CloudFormation itself calls the one that sets a stack up.
fn functions(deployment: &Deployment) -> BTreeSet<String> {
    let functions = deployment.functions().into_values();
    let functions = functions.map(|(name, _)| name.to_owned());
    functions.filter(|name| name != "SetupFunction").collect()
}

#[test]
fn no_parameter_can_contradict_the_architecture_of_the_build() {
    for deployment in deployments() {
        for (package, (_, function)) in deployment.functions() {
            assert_eq!(function["Architectures"], json!(["arm64"]), "{package}");
        }
    }
}

/// A front that called a function itself would call what was deployed last, also after a rollback.
#[test]
fn every_function_is_called_by_its_alias_alone() {
    for deployment in deployments() {
        let functions = functions(deployment);
        let aliases = deployment.of_type("AWS::Lambda::Alias");
        let named: BTreeSet<_> = aliases
            .iter()
            .map(|(name, alias)| {
                assert_eq!(alias["Name"], "live");
                let function = function_of_alias(name);
                assert_eq!(reference(&alias["FunctionName"]), Some(&*function));
                function
            })
            .collect();
        assert_eq!(named, functions);
        let permissions = deployment.of_type("AWS::Lambda::Permission");
        let called: BTreeSet<_> = permissions
            .values()
            .map(|permission| function_of_alias(reference(&permission["FunctionName"]).unwrap()))
            .collect();
        // With IAM, callers of a function URL have permissions of their own.
        let is_called = |name: &String| name != "AllFunction" || !deployment.is_iam();
        assert_eq!(called, functions.into_iter().filter(is_called).collect());
        for rule in deployment.of_type("AWS::Events::Rule").values() {
            let target = reference(&rule["Targets"][0]["Arn"]);
            assert_eq!(target, Some("JanitorAlias"));
        }
        for group in deployment
            .of_type("AWS::ElasticLoadBalancingV2::TargetGroup")
            .values()
        {
            assert_eq!(reference(&group["Targets"][0]["Id"]), Some("AllAlias"));
        }
    }
}

#[test]
fn template_without_a_release_publishes_nothing() {
    for deployment in deployments() {
        assert!(deployment.of_type("AWS::Lambda::Version").is_empty());
        assert!(
            deployment
                .of_type("AWS::CodeDeploy::Application")
                .is_empty()
        );
        for alias in deployment.of_type("AWS::Lambda::Alias").values() {
            assert_eq!(alias["FunctionVersion"], "$LATEST");
        }
    }
}

/// Lambda publishes no version of a function that has not changed, and CloudFormation none of a version that has not.
#[test]
fn release_changes_each_function_and_its_version_together() {
    for deployment in released(RELEASE).unwrap_or_default() {
        let versions = deployment.of_type("AWS::Lambda::Version");
        assert_eq!(versions.len(), functions(&deployment).len());
        for name in &functions(&deployment) {
            let function = deployment.properties(name);
            let described = &function["Description"]["Fn::Join"];
            assert_eq!(described[1][1], RELEASE, "{name}");
            let version = name.replace("Function", "Version0123456789ab");
            assert_eq!(
                reference(&versions[&*version]["FunctionName"]),
                Some(&**name)
            );
            assert_eq!(versions[&*version]["Description"], RELEASE);
            // The versions before stay, for a rollback; one of a failed deployment does not.
            let resource = deployment.resource(&version);
            assert_eq!(resource["UpdateReplacePolicy"], "Retain");
            assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate");
            let alias = deployment.properties(&name.replace("Function", "Alias"));
            let live = json!({"Fn::GetAtt": [version, "Version"]});
            assert_eq!(alias["FunctionVersion"], live);
        }
    }
}

/// The names of the alarms that end the gradual deployment of a function.
fn alarms(group: &Value) -> BTreeSet<&str> {
    assert_eq!(group["AlarmConfiguration"]["Enabled"], true);
    let alarms = group["AlarmConfiguration"]["Alarms"].as_array().unwrap();
    alarms
        .iter()
        .map(|alarm| match alarm["Name"]["Fn::Sub"].as_str() {
            Some("${AWS::StackName}-api-errors") => "ApiErrorsAlarm",
            _ => reference(&alarm["Name"]).unwrap(),
        })
        .collect()
}

#[test]
fn gradual_deployment_goes_back_when_an_alarm_is_raised() {
    for deployment in released(RELEASE).unwrap_or_default() {
        let aliases = deployment.of_type("AWS::Lambda::Alias");
        let is_gradual = !deployment.given("GradualDeployment").is_empty();
        let groups = deployment.of_type("AWS::CodeDeploy::DeploymentGroup");
        let policy = |alias: &str| deployment.resource(alias).get("UpdatePolicy").cloned();
        if !is_gradual {
            assert!(groups.is_empty());
            assert!(aliases.keys().all(|alias| policy(alias).is_none()));
            continue;
        }
        // A schedule calls the janitor too seldom for a part of its calls to say anything.
        assert_eq!(groups.len() + 1, aliases.len());
        for alias in aliases.into_keys().filter(|name| *name != "JanitorAlias") {
            let group = alias.replace("Alias", "GradualDeployment");
            let expected = json!({"CodeDeployLambdaAliasUpdate": {
                "ApplicationName": {"Ref": "GradualDeployments"},
                "DeploymentGroupName": {"Ref": group},
            }});
            assert_eq!(policy(alias), Some(expected));
            let group = groups[&*group];
            assert_eq!(
                group["DeploymentConfigName"],
                "CodeDeployDefault.LambdaCanary10Percent10Minutes"
            );
            let events = &group["AutoRollbackConfiguration"]["Events"];
            assert!(
                events
                    .as_array()
                    .unwrap()
                    .contains(&json!("DEPLOYMENT_STOP_ON_ALARM"))
            );
            let known = deployment.of_type("AWS::CloudWatch::Alarm");
            let alarms = alarms(group);
            if let Some(api) = known.get("ApiErrorsAlarm") {
                assert_eq!(api["AlarmName"]["Fn::Sub"], "${AWS::StackName}-api-errors");
            }
            assert!(alarms.iter().all(|alarm| known.contains_key(alarm)));
            let front = match (deployment.is_http_api(), deployment.is_alb()) {
                (true, _) if alias == "AccessAlias" => Some("KesApiErrorsAlarm"),
                (true, _) => Some("ApiErrorsAlarm"),
                // The load balancer's owner watches it.
                (false, true) => None,
                (false, false) => Some("UrlErrorsAlarm"),
            };
            assert!(front.is_none_or(|front| alarms.contains(front)), "{alias}");
            assert!(!alarms.is_empty(), "{alias}");
        }
    }
}

#[test]
fn code_deploy_may_move_the_functions_aliases_and_nothing_else() {
    for deployment in released(RELEASE).unwrap_or_default() {
        let groups = deployment.of_type("AWS::CodeDeploy::DeploymentGroup");
        let Some(group) = groups.values().next() else {
            continue;
        };
        let role = deployment.properties(arn_of(&group["ServiceRoleArn"]).unwrap());
        assert_eq!(role.get("ManagedPolicyArns"), None);
        let trusted = &role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"];
        assert_eq!(trusted, &json!({"Service": "codedeploy.amazonaws.com"}));
        let statements = role["Policies"][0]["PolicyDocument"]["Statement"]
            .as_array()
            .unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0]["Action"], "cloudwatch:DescribeAlarms");
        let actions = json!([
            "lambda:GetAlias",
            "lambda:UpdateAlias",
            "lambda:GetProvisionedConcurrencyConfig"
        ]);
        assert_eq!(statements[1]["Action"], actions);
        let mut named = BTreeSet::new();
        for arn in statements[1]["Resource"].as_array().unwrap() {
            let with_qualifier = arn["Fn::Sub"].as_str();
            let name = with_qualifier
                .map(|arn| arn.trim_start_matches("${").trim_end_matches(".Arn}:*"))
                .or_else(|| arn_of(arn));
            named.insert(name.unwrap().to_owned());
        }
        let mut expected = functions(&deployment);
        expected.remove("JanitorFunction");
        assert_eq!(named, expected);
    }
}
