//! The resources that outlive the stack, and the alarms.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::deployments::{Deployment, deployments, reference};

fn is_kept(deployment: &Deployment, name: &str) {
    let resource = deployment.resource(name);
    assert_eq!(resource["DeletionPolicy"], "Retain", "{name}");
    assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{name}");
}

#[test]
fn the_table_is_kept_and_costs_what_is_used() {
    for deployment in deployments() {
        let tables: Vec<_> = deployment
            .of_type("AWS::DynamoDB::Table")
            .into_keys()
            .collect();
        assert_eq!(tables, ["Table"]);
        is_kept(deployment, "Table");
        let expected = json!({
            "BillingMode": "PAY_PER_REQUEST",
            "DeletionProtectionEnabled": true,
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": true},
            "SSESpecification": {"SSEEnabled": true},
            "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": true},
            "AttributeDefinitions": [
                {"AttributeName": "kind", "AttributeType": "S"},
                {"AttributeName": "id", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "kind", "KeyType": "HASH"},
                {"AttributeName": "id", "KeyType": "RANGE"},
            ],
        });
        assert_eq!(deployment.properties("Table"), &expected);
    }
}

#[test]
fn the_keyring_is_kept_and_has_no_value_that_the_stack_would_know() {
    for deployment in deployments() {
        let secrets: Vec<_> = deployment
            .of_type("AWS::SecretsManager::Secret")
            .into_keys()
            .collect();
        assert_eq!(secrets, ["RootAccessKey", "RootKeyring"]);
        for secret in secrets {
            is_kept(deployment, secret);
            assert_eq!(deployment.properties(secret).get("SecretString"), None);
        }
        assert_eq!(
            deployment
                .properties("RootKeyring")
                .get("GenerateSecretString"),
            None
        );
        let generated = &deployment.properties("RootAccessKey")["GenerateSecretString"];
        assert_eq!(generated["GenerateStringKey"], "secret_access_key");
        assert_eq!(generated["PasswordLength"], 40);
        let template = generated["SecretStringTemplate"]["Fn::Sub"]
            .as_str()
            .unwrap();
        let template: Value =
            serde_json::from_str(&template.replace("${AWS::StackName}", "keyway")).unwrap();
        assert_eq!(template, json!({"access_key_id": "keyway-root"}));
    }
}

#[test]
fn logs_are_kept_for_a_time() {
    for deployment in deployments() {
        let mut logs = BTreeSet::new();
        for (package, (_, function)) in deployment.functions() {
            let log = reference(&function["LoggingConfig"]["LogGroup"]).unwrap();
            let days: u32 = deployment.properties(log)["RetentionInDays"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=365).contains(&days), "{package}");
            // Keyway's own lines are JSON, which Lambda must neither wrap nor sift.
            assert_eq!(function["LoggingConfig"]["LogFormat"], "JSON");
            assert_eq!(function["LoggingConfig"]["ApplicationLogLevel"], "TRACE");
            logs.insert(log);
        }
        assert_eq!(logs.len(), deployment.functions().len());
    }
}

#[test]
fn alarms_watch_every_function_and_the_front() {
    for deployment in deployments() {
        let alarms = deployment.of_type("AWS::CloudWatch::Alarm");
        let mut watched = BTreeSet::new();
        for (name, alarm) in &alarms {
            let dimension = &alarm["Dimensions"][0];
            let (statistic, extended) = (
                alarm["Statistic"].as_str(),
                alarm["ExtendedStatistic"].as_str(),
            );
            let value = &dimension["Value"];
            watched.insert(format!(
                "{} {} {}",
                reference(value)
                    .or_else(|| value["Fn::Sub"].as_str())
                    .unwrap(),
                alarm["MetricName"].as_str().unwrap(),
                statistic.or(extended).unwrap(),
            ));
            let told = match deployment.given("AlarmTopicArn") {
                "" => None,
                topic => Some(json!([topic])),
            };
            assert_eq!(alarm.get("AlarmActions"), told.as_ref(), "{name}");
            assert_eq!(
                alarm["TreatMissingData"], "notBreaching",
                "{name}: who sleeps is not ill"
            );
        }
        let mut expected = BTreeSet::new();
        // When the seldom called functions fail, the API answers 5xx.
        let mut functions = deployment.functions();
        functions.remove("keyway-fn-bucket-encryption");
        functions.remove("keyway-fn-access");
        for (function, _) in functions.values() {
            for metric in ["Errors Sum", "Throttles Sum", "Duration p99"] {
                expected.insert(format!("{function} {metric}"));
            }
        }
        // A REST API is watched by its name.
        let (fronts, most) = if deployment.has_kes_api() {
            let of_kes = "${AWS::StackName}-kes 5XXError Sum";
            (&["Api 5xx Sum", of_kes][..], 14)
        } else if deployment.is_http_api() {
            (&["Api 5xx Sum"][..], 13)
        } else if deployment.is_alb() {
            // The load balancer's owner watches it.
            (&[][..], 6)
        } else {
            (&["AllFunction Url5xxCount Sum"][..], 7)
        };
        expected.extend(fronts.iter().map(|&front| front.to_owned()));
        assert_eq!(watched, expected);
        // Ten are free in an account; docs/cost.md counts with these.
        assert_eq!(alarms.len(), most);
    }
}
