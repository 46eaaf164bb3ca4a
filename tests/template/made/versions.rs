//! A version and an alias of each function, and CodeDeploy's part of them.

use std::fmt::Write as _;

use super::alarms::API_ERRORS;

/// A function with versions.
struct Versioned {
    /// The start of its resources' names.
    resource: &'static str,
    /// The start of the names of its conditions; empty for a function of every deployment.
    front: &'static str,
    /// The alarms that end a gradual deployment of it, each with its condition if it has another than the function.
    /// Without alarms, deployments of the function are never gradual.
    alarms: &'static [(&'static str, Option<&'static str>)],
}

const OF_KES: (&str, Option<&str>) = ("KesApiErrorsAlarm", Some("KesApiFront"));

const FUNCTIONS: [Versioned; 7] = [
    Versioned {
        resource: "Keys",
        front: "HttpApi",
        alarms: &[("KeysErrorsAlarm", None), ("ApiErrorsAlarm", None), OF_KES],
    },
    Versioned {
        resource: "Datakey",
        front: "HttpApi",
        alarms: &[
            ("DatakeyErrorsAlarm", None),
            ("ApiErrorsAlarm", None),
            OF_KES,
        ],
    },
    Versioned {
        resource: "Service",
        front: "HttpApi",
        alarms: &[
            ("ServiceErrorsAlarm", None),
            ("ApiErrorsAlarm", None),
            OF_KES,
        ],
    },
    Versioned {
        resource: "Buckets",
        front: "HttpApi",
        alarms: &[("ApiErrorsAlarm", None)],
    },
    Versioned {
        resource: "Access",
        front: "KesApi",
        alarms: &[("KesApiErrorsAlarm", None)],
    },
    Versioned {
        resource: "All",
        front: "OneFunction",
        alarms: &[
            ("AllErrorsAlarm", None),
            ("UrlErrorsAlarm", Some("FunctionUrlFront")),
        ],
    },
    // A schedule calls it too seldom for a tenth of its calls to say anything.
    Versioned {
        resource: "Janitor",
        front: "",
        alarms: &[],
    },
];

fn if_any(condition: &str, value: &str) -> String {
    format!("!If [{condition}, {value}, !Ref \"AWS::NoValue\"]")
}

/// The version that a deployment publishes, and the alias that names it. `scripts/deploy` puts a hash for `Unreleased`: a
/// version cannot be updated, so each is a resource of its own. The function's description changes with it, because Lambda
/// publishes no version of a function that has not changed.
fn version_and_alias(function: &Versioned) -> String {
    let Versioned {
        resource, front, ..
    } = function;
    let condition = match *front {
        "" => String::new(),
        "OneFunction" => "\n    Condition: OneFunction".to_owned(),
        front => format!("\n    Condition: {front}Front"),
    };
    let policy = if function.alarms.is_empty() {
        String::new()
    } else {
        let names = format!(
            "{{ApplicationName: !Ref GradualDeployments, DeploymentGroupName: !Ref {resource}GradualDeployment}}"
        );
        let policy = if_any(
            &format!("{front}Gradual"),
            &format!("{{CodeDeployLambdaAliasUpdate: {names}}}"),
        );
        format!("\n    UpdatePolicy: {policy}")
    };
    format!(
        "
  {resource}VersionUnreleased:
    Type: AWS::Lambda::Version
    Condition: {front}Released
    DeletionPolicy: RetainExceptOnCreate
    UpdateReplacePolicy: Retain
    Properties:
      FunctionName: !Ref {resource}Function
      Description: !FindInMap [Build, Functions, Release]

  {resource}Alias:
    Type: AWS::Lambda::Alias{condition}{policy}
    Properties:
      Name: live
      FunctionName: !Ref {resource}Function
      FunctionVersion: !If [{front}Released, !GetAtt {resource}VersionUnreleased.Version, $LATEST]
"
    )
}

fn deployment_group(function: &Versioned) -> String {
    let Versioned {
        resource, front, ..
    } = function;
    let mut text = format!(
        "
  {resource}GradualDeployment:
    Type: AWS::CodeDeploy::DeploymentGroup
    Condition: {front}Gradual
    Properties:
      ApplicationName: !Ref GradualDeployments
      ServiceRoleArn: !GetAtt GradualDeploymentRole.Arn
      DeploymentConfigName: !Sub \"CodeDeployDefault.Lambda${{GradualDeployment}}\"
      DeploymentStyle: {{DeploymentType: BLUE_GREEN, DeploymentOption: WITH_TRAFFIC_CONTROL}}
      AutoRollbackConfiguration:
        Enabled: true
        Events: [DEPLOYMENT_FAILURE, DEPLOYMENT_STOP_ON_ALARM, DEPLOYMENT_STOP_ON_REQUEST]
      AlarmConfiguration:
        Enabled: true
        Alarms:
"
    );
    for (alarm, condition) in function.alarms {
        let name = match *alarm {
            "ApiErrorsAlarm" => format!("{{Name: {API_ERRORS}}}"),
            alarm => format!("{{Name: !Ref {alarm}}}"),
        };
        let name = condition.map_or(name.clone(), |condition| if_any(condition, &name));
        writeln!(text, "          - {name}").unwrap();
    }
    text
}

/// CodeDeploy moves the aliases of the functions and reads alarms, and may do nothing else.
fn application<'f>(functions: impl Iterator<Item = &'f Versioned>) -> String {
    let mut text = "
  GradualDeployments:
    Type: AWS::CodeDeploy::Application
    Condition: Gradual
    Properties:
      ComputePlatform: Lambda

  GradualDeploymentRole:
    Type: AWS::IAM::Role
    Condition: Gradual
    Properties:
      Description: !Sub \"${AWS::StackName}: what CodeDeploy may do with its functions\"
      Path: !Ref RolePath
      PermissionsBoundary: !If [BoundaryGiven, !Ref PermissionsBoundaryArn, !Ref \"AWS::NoValue\"]
      AssumeRolePolicyDocument:
        Version: \"2012-10-17\"
        Statement:
          - Effect: Allow
            Principal: {Service: codedeploy.amazonaws.com}
            Action: sts:AssumeRole
      Policies:
        - PolicyName: aliases
          PolicyDocument:
            Version: \"2012-10-17\"
            Statement:
              - Sid: Alarms
                Effect: Allow
                Action: cloudwatch:DescribeAlarms
                Resource: \"*\"
              - Sid: Aliases
                Effect: Allow
                Action:
                  - lambda:GetAlias
                  - lambda:UpdateAlias
                  - lambda:GetProvisionedConcurrencyConfig
                Resource:
"
    .to_owned();
    for Versioned {
        resource, front, ..
    } in functions
    {
        for arn in [
            format!("!GetAtt {resource}Function.Arn"),
            format!("!Sub \"${{{resource}Function.Arn}}:*\""),
        ] {
            let arn = if_any(&format!("{front}Gradual"), &arn);
            writeln!(text, "                  - {arn}").unwrap();
        }
    }
    text
}

/// Every version and alias, and what CodeDeploy needs.
pub(super) fn block() -> String {
    let gradual = || {
        FUNCTIONS
            .iter()
            .filter(|function| !function.alarms.is_empty())
    };
    let mut text: String = FUNCTIONS.iter().map(version_and_alias).collect();
    text.push_str(&application(gradual()));
    text.extend(gradual().map(deployment_group));
    text
}
