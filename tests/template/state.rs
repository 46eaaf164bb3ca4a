//! The resources that outlive the stack, and the alarms.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::deployments::{
    Deployment, deployments, deployments_of, parameters_and_groups, reference,
};

const RETAINED: [&str; 3] = [
    "AWS::DynamoDB::Table",
    "AWS::SecretsManager::Secret",
    "AWS::Logs::LogGroup",
];

/// What outlives a stack is removed only when the stack's first deployment fails.
#[test]
fn retained_resources_do_not_outlive_a_failed_first_deployment() {
    for deployment in deployments() {
        let mut retained = 0;
        for (name, resource) in deployment.resources() {
            let is_retained = RETAINED.contains(&resource["Type"].as_str().unwrap());
            let policies = (
                resource["DeletionPolicy"].as_str(),
                resource["UpdateReplacePolicy"].as_str(),
            );
            let expected = if is_retained {
                retained += 1;
                (Some("RetainExceptOnCreate"), Some("Retain"))
            } else {
                (None, None)
            };
            assert_eq!(policies, expected, "{name}");
        }
        assert!(retained >= 3);
        // A table that is protected from deletion would stay behind, so only the last step of a deployment protects it.
        for table in deployment.of_type("AWS::DynamoDB::Table").values() {
            assert_eq!(table.get("DeletionProtectionEnabled"), None);
        }
    }
}

#[test]
fn setup_comes_after_all_that_can_fail() {
    for deployment in deployments() {
        let setup = deployment.resource("Deployment");
        assert_eq!(setup["Type"], "Custom::Deployment");
        let after = setup["Properties"]["After"].as_array().unwrap();
        let waits: BTreeSet<&str> = after.iter().map(|it| reference(it).unwrap()).collect();
        for (name, resource) in deployment.resources() {
            // SAM makes versions, permissions and stages of resources that are listed.
            let is_made_by_sam = resource["Type"] == "AWS::Lambda::Permission"
                || resource["Type"] == "AWS::Events::Rule"
                || resource["Type"] == "AWS::ApiGatewayV2::Stage"
                || resource["Type"] == "AWS::Lambda::Version"
                || resource["Type"] == "AWS::Lambda::Alias"
                || resource["Type"] == "AWS::ApiGateway::Stage"
                || resource["Type"] == "AWS::ApiGateway::Deployment";
            if name != "Deployment" && !is_made_by_sam {
                assert!(waits.contains(name), "the setup does not wait for {name}");
            }
        }
        let properties = &setup["Properties"];
        assert!(deployment.is_table(&properties["Table"]));
        let keyring = deployment.secret(&properties["RootKeyring"]);
        assert_eq!(keyring, Some("RootKeyring"));
    }
}

#[test]
fn new_table_costs_what_is_used_and_can_be_restored() {
    for deployment in deployments() {
        let tables = deployment.of_type("AWS::DynamoDB::Table");
        let names: Vec<_> = tables.keys().copied().collect();
        if deployment.is_adopting() {
            assert!(names.is_empty());
            continue;
        }
        assert_eq!(names, ["Table"]);
        let encryption = match deployment.given("KmsKeyArn") {
            "" => json!({"SSEEnabled": true}),
            key => json!({"SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": key}),
        };
        let expected = json!({
            "BillingMode": "PAY_PER_REQUEST",
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": true},
            "SSESpecification": encryption,
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
fn new_keyring_has_no_value_that_the_stack_would_know() {
    for deployment in deployments() {
        let secrets: Vec<_> = deployment
            .of_type("AWS::SecretsManager::Secret")
            .into_keys()
            .collect();
        if deployment.is_adopting() {
            assert!(secrets.is_empty());
            continue;
        }
        let expected = match deployment.has_root_access_key() {
            true => &["RootAccessKey", "RootKeyring"][..],
            false => &["RootKeyring"],
        };
        assert_eq!(secrets, expected);
        for secret in secrets {
            let secret = deployment.properties(secret);
            assert_eq!(secret.get("SecretString"), None);
            match deployment.given("KmsKeyArn") {
                "" => assert_eq!(secret.get("KmsKeyId"), None),
                key => assert_eq!(secret["KmsKeyId"], key),
            }
        }
        let keyring = deployment.properties("RootKeyring");
        assert_eq!(keyring.get("GenerateSecretString"), None);
        match deployment.given("KeyringReplicaRegion") {
            "" => assert_eq!(keyring.get("ReplicaRegions"), None),
            region => assert_eq!(keyring["ReplicaRegions"], json!([{"Region": region}])),
        }
        if !deployment.has_root_access_key() {
            continue;
        }
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
fn parameters_that_cannot_work_together_are_refused() {
    let keyring = "arn:aws:secretsmanager:us-east-1:123456789012:secret:RootKeyring-a1b2c3-d4e5f6";
    let cases: [(&[(&str, &str)], &str); 7] = [
        (
            &[("ExistingTable", "keyway-restored")],
            "needs ExistingRootKeyring",
        ),
        (
            &[("ExistingRootKeyring", keyring)],
            "needs ExistingTable, or AcceptEmptyTable=true",
        ),
        (
            &[
                ("ExistingTable", "keyway-restored"),
                ("ExistingRootKeyring", keyring),
                ("KeyringReplicaRegion", "eu-west-1"),
            ],
            "KeyringReplicaRegion is for a new root keyring",
        ),
        (&[("SubnetIds", "subnet-0a")], "needs SecurityGroupIds"),
        (&[("SecurityGroupIds", "sg-0a")], "needs SubnetIds"),
        (
            &[("LogClass", "INFREQUENT_ACCESS"), ("Metrics", "emf")],
            "needs Metrics=off",
        ),
        (
            &[
                ("ExistingRootKeyring", keyring),
                ("AcceptEmptyTable", "true"),
            ],
            "",
        ),
    ];
    let sets = cases.map(|(given, _)| {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        given.iter().map(owned).collect()
    });
    for (deployment, (given, why)) in deployments_of(&sets).into_iter().flatten().zip(cases) {
        let broken = deployment.broken_rules();
        if why.is_empty() {
            assert!(broken.is_empty(), "{given:?}: {broken:?}");
        } else {
            assert_eq!(broken.len(), 1, "{given:?}: {broken:?}");
            assert!(broken[0].contains(why), "{given:?}: {broken:?}");
        }
    }
}

#[test]
fn console_shows_every_parameter_in_one_group() {
    let Some((mut parameters, groups)) = parameters_and_groups() else {
        return;
    };
    let mut shown: Vec<String> = groups.concat();
    parameters.sort();
    shown.sort();
    assert_eq!(shown, parameters);
}

fn has_the_class_and_key_of_logs(deployment: &Deployment, log: &str) {
    let log = deployment.properties(log);
    let class = match deployment.given("LogClass") {
        "" => "STANDARD",
        class => class,
    };
    assert_eq!(log["LogGroupClass"], class);
    match deployment.given("KmsKeyArn") {
        "" => assert_eq!(log.get("KmsKeyId"), None),
        key => assert_eq!(log["KmsKeyId"], key),
    }
}

#[test]
fn apis_log_requests_where_the_operator_wants_it() {
    for deployment in deployments() {
        let is_wanted = deployment.given("ApiAccessLogs") == "on";
        let stages = deployment.of_type("AWS::ApiGatewayV2::Stage");
        let of_kes = deployment.of_type("AWS::ApiGateway::Stage");
        let stages = stages
            .values()
            .map(|stage| (stage.get("AccessLogSettings"), "ApiAccessLog"));
        let of_kes = of_kes
            .values()
            .map(|stage| (stage.get("AccessLogSetting"), "KesApiAccessLog"));
        for (setting, log) in stages.chain(of_kes) {
            assert_eq!(setting.is_some(), is_wanted, "{log}");
            let Some(setting) = setting else { continue };
            assert_eq!(setting["DestinationArn"]["Fn::GetAtt"], json!([log, "Arn"]));
            has_the_class_and_key_of_logs(deployment, log);
            // A query can hold a signature, and a header a session's token.
            let format = setting["Format"].as_str().unwrap();
            let line: Value = serde_json::from_str(format).unwrap();
            assert_eq!(line["request_id"], "$context.requestId");
            for secret in ["query", "header", "path\"", "authorizer"] {
                assert!(!format.contains(secret), "{format}");
            }
        }
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
            has_the_class_and_key_of_logs(deployment, log);
            // Keyway's own lines are JSON, which Lambda must neither wrap nor sift.
            assert_eq!(function["LoggingConfig"]["LogFormat"], "JSON");
            assert_eq!(function["LoggingConfig"]["ApplicationLogLevel"], "TRACE");
            logs.insert(log);
        }
        assert_eq!(logs.len(), deployment.functions().len());
    }
}

/// Where the deployment's alarms are sent.
fn told(deployment: &Deployment) -> Vec<Value> {
    let mut told = Vec::new();
    if !deployment.given("AlarmTopicArn").is_empty() {
        told.push(json!(deployment.given("AlarmTopicArn")));
    }
    if !deployment.given("AlarmEmail").is_empty() {
        told.push(json!({"Ref": "AlarmTopic"}));
    }
    told
}

#[test]
fn alarms_are_sent_to_the_topic_and_the_address_that_are_given() {
    for deployment in deployments() {
        for (name, alarm) in deployment.of_type("AWS::CloudWatch::Alarm") {
            for actions in ["AlarmActions", "OKActions"] {
                assert_eq!(alarm[actions], json!(told(deployment)), "{name}");
            }
        }
        let subscriptions = deployment.of_type("AWS::SNS::Subscription");
        let address = deployment.given("AlarmEmail");
        assert_eq!(subscriptions.is_empty(), address.is_empty());
        for subscription in subscriptions.values() {
            assert_eq!(subscription["Protocol"], "email");
            assert_eq!(subscription["Endpoint"], address);
            assert_eq!(reference(&subscription["TopicArn"]), Some("AlarmTopic"));
        }
    }
}

#[test]
fn alarms_watch_every_function_the_front_the_table_and_the_log() {
    for deployment in deployments() {
        let alarms = deployment.of_type("AWS::CloudWatch::Alarm");
        if deployment.given("Alarms") == "off" {
            assert!(alarms.is_empty());
            continue;
        }
        let mut watched = BTreeSet::new();
        for (name, alarm) in &alarms {
            let (statistic, extended) = (
                alarm["Statistic"].as_str(),
                alarm["ExtendedStatistic"].as_str(),
            );
            let value = &alarm["Dimensions"][0]["Value"];
            let of = if deployment.is_table(value) {
                "Table"
            } else if value.is_null() {
                // Metrics without a dimension are the stack's by their namespace.
                alarm["Namespace"]["Fn::Sub"].as_str().unwrap()
            } else {
                reference(value)
                    .or_else(|| value["Fn::Sub"].as_str())
                    .unwrap()
            };
            watched.insert(format!(
                "{of} {} {}",
                alarm["MetricName"].as_str().unwrap(),
                statistic.or(extended).unwrap(),
            ));
            // Without calls there is no data, which says something of the janitor alone: it is called by a schedule.
            let missing = match *name {
                "JanitorSilentAlarm" => "breaching",
                _ => "notBreaching",
            };
            assert_eq!(alarm["TreatMissingData"], missing, "{name}");
        }
        let mut expected = BTreeSet::new();
        // When the seldom called functions fail, the API answers 5xx. CloudFormation reports what the setup fails with.
        let mut functions = deployment.functions();
        functions.remove("keyway-fn-bucket-encryption");
        functions.remove("keyway-fn-access");
        functions.remove("keyway-fn-setup");
        for (function, _) in functions.values() {
            for metric in ["Errors Sum", "Throttles Sum", "Duration p99"] {
                expected.insert(format!("{function} {metric}"));
            }
        }
        // A REST API is watched by its name.
        let (fronts, mut most) = if deployment.has_kes_api() {
            let of_kes = "${AWS::StackName}-kes 5XXError Sum";
            (&["Api 5xx Sum", of_kes][..], 19)
        } else if deployment.is_http_api() {
            (&["Api 5xx Sum"][..], 18)
        } else if deployment.is_alb() {
            // The load balancer's owner watches it.
            (&[][..], 11)
        } else {
            (&["AllFunction Url5xxCount Sum"][..], 12)
        };
        expected.extend(fronts.iter().map(|&front| front.to_owned()));
        for metric in ["ReadThrottleEvents", "WriteThrottleEvents"] {
            expected.insert(format!("Table {metric} Sum"));
        }
        expected.insert("JanitorFunction Invocations Sum".to_owned());
        if deployment.given("LogClass") == "INFREQUENT_ACCESS" {
            most -= 2;
        } else {
            for metric in ["AuditFailures", "UnwrapFailures"] {
                expected.insert(format!("Keyway/${{AWS::StackName}} {metric} Sum"));
            }
        }
        assert_eq!(watched, expected);
        // Ten are free in an account; docs/cost.md counts with these.
        assert_eq!(alarms.len(), most);
    }
}

#[test]
fn failures_in_every_log_of_a_serving_function_are_counted() {
    for deployment in deployments() {
        let mut counted = BTreeSet::new();
        for (name, filter) in deployment.of_type("AWS::Logs::MetricFilter") {
            let [metric] = filter["MetricTransformations"]
                .as_array()
                .unwrap()
                .as_slice()
            else {
                panic!("{name}");
            };
            assert_eq!(
                metric["MetricNamespace"]["Fn::Sub"],
                "Keyway/${AWS::StackName}"
            );
            counted.insert((
                reference(&filter["LogGroupName"]).unwrap().to_owned(),
                metric["MetricName"].as_str().unwrap().to_owned(),
            ));
        }
        let mut expected = BTreeSet::new();
        // CloudWatch makes no metrics of the other class.
        if deployment.given("LogClass") != "INFREQUENT_ACCESS"
            && deployment.given("Alarms") != "off"
        {
            for (package, (_, function)) in deployment.functions() {
                if package == "keyway-fn-setup" {
                    continue;
                }
                let log = reference(&function["LoggingConfig"]["LogGroup"]).unwrap();
                for metric in ["AuditFailures", "UnwrapFailures"] {
                    expected.insert((log.to_owned(), metric.to_owned()));
                }
            }
        }
        assert_eq!(counted, expected);
    }
}

#[test]
fn janitor_that_did_not_run_is_noticed_after_the_hours_that_are_given() {
    let with_alarms = |it: &&Deployment| it.given("Alarms") != "off";
    for deployment in deployments().iter().filter(with_alarms) {
        let alarm = deployment.properties("JanitorSilentAlarm");
        let hours = match deployment.given("JanitorSilentHours") {
            "" => "3",
            hours => hours,
        };
        assert_eq!(alarm["EvaluationPeriods"], hours);
        assert_eq!(alarm["Period"], 3600);
        assert_eq!(alarm["ComparisonOperator"], "LessThanThreshold");
        assert_eq!(alarm["Threshold"], 1);
    }
}
