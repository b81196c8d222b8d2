//! The JSON home document: relations of the Identity API to paths.
use serde_json::{Map, Value, json};

const BASE: &str = "https://docs.openstack.org/api/openstack-identity/3";
const EXTENSIONS: &str = "https://docs.openstack.org/api/openstack-identity/3/ext";

/// Relations of v3 itself.
const CORE: &[(&str, &str)] = &[
    ("auth_tokens", "/auth/tokens"),
    ("auth_catalog", "/auth/catalog"),
    ("auth_projects", "/auth/projects"),
    ("auth_domains", "/auth/domains"),
    ("auth_system", "/auth/system"),
    ("domains", "/domains"),
    ("domain", "/domains/{domain_id}"),
    ("domain_user_roles", "/domains/{domain_id}/users/{user_id}/roles"),
    ("domain_user_role", "/domains/{domain_id}/users/{user_id}/roles/{role_id}"),
    ("domain_group_roles", "/domains/{domain_id}/groups/{group_id}/roles"),
    ("domain_group_role", "/domains/{domain_id}/groups/{group_id}/roles/{role_id}"),
    ("domain_config", "/domains/{domain_id}/config"),
    ("domain_config_group", "/domains/{domain_id}/config/{group}"),
    ("domain_config_option", "/domains/{domain_id}/config/{group}/{option}"),
    ("domain_config_default", "/domains/config/default"),
    ("domain_config_default_group", "/domains/config/{group}/default"),
    ("domain_config_default_option", "/domains/config/{group}/{option}/default"),
    ("projects", "/projects"),
    ("project", "/projects/{project_id}"),
    ("project_tags", "/projects/{project_id}/tags"),
    ("project_tag", "/projects/{project_id}/tags/{value}"),
    ("project_user_roles", "/projects/{project_id}/users/{user_id}/roles"),
    ("project_user_role", "/projects/{project_id}/users/{user_id}/roles/{role_id}"),
    ("project_group_roles", "/projects/{project_id}/groups/{group_id}/roles"),
    ("project_group_role", "/projects/{project_id}/groups/{group_id}/roles/{role_id}"),
    ("users", "/users"),
    ("user", "/users/{user_id}"),
    ("user_change_password", "/users/{user_id}/password"),
    ("user_tokens", "/users/{user_id}/tokens"),
    ("user_groups", "/users/{user_id}/groups"),
    ("user_projects", "/users/{user_id}/projects"),
    ("application_credentials", "/users/{user_id}/application_credentials"),
    ("application_credential", "/users/{user_id}/application_credentials/{application_credential_id}"),
    ("access_rules", "/users/{user_id}/access_rules"),
    ("access_rule", "/users/{user_id}/access_rules/{access_rule_id}"),
    ("groups", "/groups"),
    ("group", "/groups/{group_id}"),
    ("group_users", "/groups/{group_id}/users"),
    ("group_user", "/groups/{group_id}/users/{user_id}"),
    ("roles", "/roles"),
    ("role", "/roles/{role_id}"),
    ("implied_roles", "/roles/{prior_role_id}/implies"),
    ("implied_role", "/roles/{prior_role_id}/implies/{implied_role_id}"),
    ("role_inferences", "/role_inferences"),
    ("role_assignments", "/role_assignments"),
    ("system_user_roles", "/system/users/{user_id}/roles"),
    ("system_user_role", "/system/users/{user_id}/roles/{role_id}"),
    ("system_group_roles", "/system/groups/{group_id}/roles"),
    ("system_group_role", "/system/groups/{group_id}/roles/{role_id}"),
    ("regions", "/regions"),
    ("region", "/regions/{region_id}"),
    ("services", "/services"),
    ("service", "/services/{service_id}"),
    ("endpoints", "/endpoints"),
    ("endpoint", "/endpoints/{endpoint_id}"),
    ("credentials", "/credentials"),
    ("credential", "/credentials/{credential_id}"),
    ("policies", "/policies"),
    ("policy", "/policies/{policy_id}"),
    ("registered_limits", "/registered_limits"),
    ("registered_limit", "/registered_limits/{registered_limit_id}"),
    ("limits", "/limits"),
    ("limit", "/limits/{limit_id}"),
    ("limit_model", "/limits/model"),
    ("security_compliance", "/domains/{domain_id}/config/security_compliance"),
    ("security_compliance_option", "/domains/{domain_id}/config/security_compliance/{option}"),
];

/// Relations of extensions.
const EXTENDED: &[(&str, &str, &str)] = &[
    ("OS-EC2", "ec2tokens", "/ec2tokens"),
    ("s3tokens", "s3tokens", "/s3tokens"),
    ("OS-EC2", "user_credentials", "/users/{user_id}/credentials/OS-EC2"),
    ("OS-EC2", "user_credential", "/users/{user_id}/credentials/OS-EC2/{credential_id}"),
    ("OS-TRUST", "trusts", "/OS-TRUST/trusts"),
    ("OS-TRUST", "trust", "/OS-TRUST/trusts/{trust_id}"),
    ("OS-TRUST", "trust_roles", "/OS-TRUST/trusts/{trust_id}/roles"),
    ("OS-TRUST", "trust_role", "/OS-TRUST/trusts/{trust_id}/roles/{role_id}"),
    ("OS-REVOKE", "events", "/OS-REVOKE/events"),
    ("OS-EP-FILTER", "endpoint_groups", "/OS-EP-FILTER/endpoint_groups"),
    ("OS-EP-FILTER", "endpoint_group", "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}"),
    ("OS-EP-FILTER", "project_endpoints", "/OS-EP-FILTER/projects/{project_id}/endpoints"),
    ("OS-EP-FILTER", "project_endpoint", "/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}"),
    ("OS-EP-FILTER", "endpoint_projects", "/OS-EP-FILTER/endpoints/{endpoint_id}/projects"),
    ("OS-ENDPOINT-POLICY", "endpoint_policy", "/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy"),
    ("OS-ENDPOINT-POLICY", "policy_endpoints", "/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints"),
    ("OS-OAUTH1", "consumers", "/OS-OAUTH1/consumers"),
    ("OS-OAUTH1", "consumer", "/OS-OAUTH1/consumers/{consumer_id}"),
    ("OS-FEDERATION", "identity_providers", "/OS-FEDERATION/identity_providers"),
    ("OS-FEDERATION", "identity_provider", "/OS-FEDERATION/identity_providers/{idp_id}"),
    ("OS-FEDERATION", "identity_provider_protocols", "/OS-FEDERATION/identity_providers/{idp_id}/protocols"),
    ("OS-FEDERATION", "identity_provider_protocol", "/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}"),
    (
        "OS-FEDERATION",
        "identity_provider_protocol_auth",
        "/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth",
    ),
    ("OS-FEDERATION", "mappings", "/OS-FEDERATION/mappings"),
    ("OS-FEDERATION", "mapping", "/OS-FEDERATION/mappings/{mapping_id}"),
    ("OS-FEDERATION", "service_providers", "/OS-FEDERATION/service_providers"),
    ("OS-FEDERATION", "service_provider", "/OS-FEDERATION/service_providers/{sp_id}"),
    ("OS-FEDERATION", "projects", "/OS-FEDERATION/projects"),
    ("OS-FEDERATION", "domains", "/OS-FEDERATION/domains"),
    ("OS-FEDERATION", "websso", "/auth/OS-FEDERATION/websso/{protocol_id}"),
    (
        "OS-FEDERATION",
        "identity_providers_websso",
        "/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso",
    ),
    ("OS-OAUTH1", "request_tokens", "/OS-OAUTH1/request_token"),
    ("OS-OAUTH1", "authorize_request_token", "/OS-OAUTH1/authorize/{request_token_id}"),
    ("OS-OAUTH1", "access_tokens", "/OS-OAUTH1/access_token"),
    ("OS-OAUTH1", "user_access_tokens", "/users/{user_id}/OS-OAUTH1/access_tokens"),
    ("OS-OAUTH1", "user_access_token", "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}"),
    ("OS-OAUTH1", "user_access_token_roles", "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles"),
    ("OS-OAUTH1", "user_access_token_role", "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}"),
    ("OS-PKI", "revocations", "/auth/tokens/OS-PKI/revoked"),
    ("OS-EP-FILTER", "endpoints_in_endpoint_group", "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints"),
    (
        "OS-EP-FILTER",
        "endpoint_group_to_project_association",
        "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}",
    ),
    ("OS-EP-FILTER", "projects_associated_with_endpoint_group", "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects"),
    ("OS-EP-FILTER", "project_endpoint_groups", "/OS-EP-FILTER/projects/{project_id}/endpoint_groups"),
    ("OS-ENDPOINT-POLICY", "endpoint_policy_association", "/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}"),
    ("OS-ENDPOINT-POLICY", "service_policy_association", "/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}"),
    (
        "OS-ENDPOINT-POLICY",
        "region_and_service_policy_association",
        "/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}",
    ),
    (
        "OS-INHERIT",
        "domain_group_roles_inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "project_user_roles_inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "project_group_roles_inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "domain_user_role_inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "domain_group_role_inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "domain_user_roles_inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "project_user_role_inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
    ),
    (
        "OS-INHERIT",
        "project_group_role_inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
    ),
];

fn entry(path: &str, prefix: &str) -> Value {
    let names: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
    if names.is_empty() {
        return json!({"href": format!("{prefix}{path}")});
    }
    let vars: Map<String, Value> = names.iter().map(|n| ((*n).to_owned(), format!("{BASE}/param/{n}").into())).collect();
    json!({"href-template": format!("{prefix}{path}"), "href-vars": vars})
}

/// The document, with paths below `prefix`.
pub(super) fn document(prefix: &str) -> Value {
    let core = CORE.iter().map(|(rel, path)| (format!("{BASE}/rel/{rel}"), entry(path, prefix)));
    let extended = EXTENDED.iter().map(|(ext, rel, path)| (format!("{EXTENSIONS}/{ext}/1.0/rel/{rel}"), entry(path, prefix)));
    json!({"resources": core.chain(extended).collect::<Map<String, Value>>()})
}
