//! The alarms: three of each function that is called often, one of each API and of the function URL, and those of the
//! table, of the janitor's schedule, and of failures that only the log tells.

use std::fmt::Write as _;

/// The metric that an alarm watches.
struct Alarm<'a> {
    name: String,
    condition: &'a str,
    description: String,
    namespace: &'a str,
    metric: &'a str,
    /// Empty for none.
    dimension: String,
    statistic: &'a str,
    /// Seconds.
    period: u32,
    periods: &'a str,
    comparison: &'a str,
    threshold: &'a str,
    missing: &'a str,
}

const FIVE_MINUTES: u32 = 300;
const ABOVE: &str = "GreaterThanThreshold";
/// No data: nobody called, or nothing failed.
const IS_FINE: &str = "notBreaching";

/// The functions with alarms of their own: resource, name, condition, the number of slow periods that raise the alarm,
/// and the limit of slowness.
const FUNCTIONS: [(&str, &str, &str, &str, &str); 5] = [
    (
        "Keys",
        "keys",
        "HttpApiAlarms",
        "3",
        "!Ref SlowMilliseconds",
    ),
    (
        "Datakey",
        "datakey",
        "HttpApiAlarms",
        "3",
        "!Ref SlowMilliseconds",
    ),
    (
        "Service",
        "service",
        "HttpApiAlarms",
        "3",
        "!Ref SlowMilliseconds",
    ),
    (
        "All",
        "all",
        "OneFunctionAlarms",
        "3",
        "!Ref SlowMilliseconds",
    ),
    (
        "Janitor",
        "janitor",
        "AlarmsOn",
        "1",
        "240000 # of the 300000 after which it is stopped",
    ),
];

/// The name of the HTTP API's alarm. Gradual deployments name it so: a reference to the alarm would need the API, which
/// needs the aliases, which need the deployments.
pub(super) const API_ERRORS: &str = "!Sub \"${AWS::StackName}-api-errors\"";

fn of_functions() -> Vec<Alarm<'static>> {
    let mut alarms = Vec::new();
    for (resource, name, condition, slow_periods, slow) in FUNCTIONS {
        let alarm = |kind, description, metric, statistic, periods, threshold| Alarm {
            name: format!("{resource}{kind}Alarm"),
            condition,
            description,
            namespace: "AWS/Lambda",
            metric,
            dimension: format!("{{Name: FunctionName, Value: !Ref {resource}Function}}"),
            statistic,
            period: FIVE_MINUTES,
            periods,
            comparison: ABOVE,
            threshold,
            missing: IS_FINE,
        };
        let failed = format!("the {name} function failed");
        let throttled = format!("the {name} function was throttled");
        let is_slow = format!("one in a hundred invocations of the {name} function is slow");
        alarms.extend([
            alarm("Errors", failed, "Errors", "Statistic: Sum", "1", "0"),
            alarm(
                "Throttles",
                throttled,
                "Throttles",
                "Statistic: Sum",
                "1",
                "0",
            ),
            alarm(
                "Slow",
                is_slow,
                "Duration",
                "ExtendedStatistic: p99",
                slow_periods,
                slow,
            ),
        ]);
    }
    alarms
}

fn of_fronts() -> Vec<Alarm<'static>> {
    let front = |name: &str, condition, what: &str, namespace, metric, dimension: &str| Alarm {
        name: format!("{name}ErrorsAlarm"),
        condition,
        description: format!("{what} answered 5xx"),
        namespace,
        metric,
        dimension: dimension.to_owned(),
        statistic: "Statistic: Sum",
        period: FIVE_MINUTES,
        periods: "1",
        comparison: ABOVE,
        threshold: "0",
        missing: IS_FINE,
    };
    let (api, lambda) = ("AWS/ApiGateway", "AWS/Lambda");
    vec![
        front(
            "Api",
            "HttpApiAlarms",
            "the API",
            api,
            "5xx",
            "{Name: ApiId, Value: !Ref Api}",
        ),
        // A REST API is watched by its name.
        front(
            "KesApi",
            "KesApiAlarms",
            "KES's API",
            api,
            "5XXError",
            "{Name: ApiName, Value: !Sub \"${AWS::StackName}-kes\"}",
        ),
        front(
            "Url",
            "FunctionUrlAlarms",
            "the function URL",
            lambda,
            "Url5xxCount",
            "{Name: FunctionName, Value: !Ref AllFunction}",
        ),
    ]
}

/// Lines of the log that are a failure which no metric of AWS's shows: the metric, the start of the line's message, and
/// the alarm's description. They work with `Metrics=off` too.
const FAILURES: [(&str, &[&str], &str); 2] = [
    (
        "AuditFailures",
        &["the audit log cannot be written"],
        "the audit log could not be written",
    ),
    (
        "UnwrapFailures",
        &["unwrapping a secret", "no key can be used until"],
        "a key could not be unwrapped",
    ),
];

/// The functions whose logs are watched, and the condition of that.
const LOGS: [(&str, &str); 7] = [
    ("Keys", "HttpApiLogAlarms"),
    ("Datakey", "HttpApiLogAlarms"),
    ("Service", "HttpApiLogAlarms"),
    ("Buckets", "HttpApiLogAlarms"),
    ("Access", "KesApiLogAlarms"),
    ("All", "OneFunctionLogAlarms"),
    ("Janitor", "LogAlarms"),
];

/// Whom alarms are sent to.
const TOLD: &str = "
        - !If [AlarmTopicGiven, !Ref AlarmTopicArn, !Ref \"AWS::NoValue\"]
        - !If [AlarmsByEmail, !Ref AlarmTopic, !Ref \"AWS::NoValue\"]";
const NAMESPACE: &str = "!Sub \"Keyway/${AWS::StackName}\"";

fn others() -> Vec<Alarm<'static>> {
    let alarm =
        |name: &str, condition, description: &str, namespace, metric, dimension: &str| Alarm {
            name: format!("{name}Alarm"),
            condition,
            description: description.to_owned(),
            namespace,
            metric,
            dimension: dimension.to_owned(),
            statistic: "Statistic: Sum",
            period: FIVE_MINUTES,
            periods: "1",
            comparison: ABOVE,
            threshold: "0",
            missing: IS_FINE,
        };
    let table = "{Name: TableName, Value: !If [NewTable, !Ref Table, !Ref ExistingTable]}";
    let janitor = "{Name: FunctionName, Value: !Ref JanitorFunction}";
    let mut alarms: Vec<Alarm<'_>> = [
        ("Read", "ReadThrottleEvents"),
        ("Write", "WriteThrottleEvents"),
    ]
    .into_iter()
    .map(|(kind, metric)| {
        let name = format!("Table{kind}Throttles");
        let description = format!("the table throttled {}s", kind.to_lowercase());
        alarm(
            &name,
            "AlarmsOn",
            &description,
            "AWS/DynamoDB",
            metric,
            table,
        )
    })
    .collect();
    alarms.push(Alarm {
        period: 3600,
        periods: "!Ref JanitorSilentHours",
        comparison: "LessThanThreshold",
        threshold: "1",
        missing: "breaching",
        ..alarm(
            "JanitorSilent",
            "AlarmsOn",
            "the janitor did not run, so no key is destroyed; a new stack says so until the first run",
            "AWS/Lambda",
            "Invocations",
            janitor,
        )
    });
    for (metric, _, description) in FAILURES {
        alarms.push(alarm(
            metric,
            "LogAlarms",
            description,
            NAMESPACE,
            metric,
            "",
        ));
    }
    alarms
}

/// The filters that make metrics of the log's lines.
fn filters() -> String {
    let mut text = String::new();
    for (resource, condition) in LOGS {
        for (metric, messages, _) in FAILURES {
            let messages: Vec<String> = messages
                .iter()
                .map(|start| format!("$.message = \"{start}*\""))
                .collect();
            write!(
                text,
                "
  {resource}{metric}:
    Type: AWS::Logs::MetricFilter
    Condition: {condition}
    Properties:
      LogGroupName: !Ref {resource}Log
      FilterPattern: '{{ {} }}'
      MetricTransformations:
        - MetricNamespace: {NAMESPACE}
          MetricName: {metric}
          MetricValue: \"1\"
          Unit: Count
",
                messages.join(" || ")
            )
            .unwrap();
        }
    }
    text
}

pub(super) fn block() -> String {
    let mut text = filters();
    let alarms = of_functions().into_iter().chain(of_fronts());
    for alarm in alarms.chain(others()) {
        let Alarm {
            name,
            condition,
            description,
            namespace,
            metric,
            dimension,
            statistic,
            period,
            periods,
            comparison,
            threshold,
            missing,
        } = alarm;
        let chosen = if name == "ApiErrorsAlarm" {
            format!("\n      AlarmName: {API_ERRORS}")
        } else {
            String::new()
        };
        let dimensions = match dimension.as_str() {
            "" => String::new(),
            dimension => format!("      Dimensions: [{dimension}]\n"),
        };
        write!(
            text,
            "
  {name}:
    Type: AWS::CloudWatch::Alarm
    Condition: {condition}
    Properties:{chosen}
      AlarmDescription: !Sub \"${{AWS::StackName}}: {description}\"
      Namespace: {namespace}
      MetricName: \"{metric}\"
{dimensions}      {statistic}
      Period: {period}
      EvaluationPeriods: {periods}
      ComparisonOperator: {comparison}
      Threshold: {threshold}
      TreatMissingData: {missing}
      AlarmActions:{TOLD}
      OKActions:{TOLD}
"
        )
        .unwrap();
    }
    text
}
