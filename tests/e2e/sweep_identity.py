"""Every command of the `openstack` client for identity: what was set is shown, what was removed is gone."""
import json
import tempfile
from osc import ADMIN, admin, ajs, column, js, login, refused, run, said, shows, undone


def names(line, name="Name"):
    return column(line, name, ADMIN)


def test_domains():
    with undone("domain set --disable sweep2", "domain delete sweep2"):
        made = ajs("domain create --description 'a place' sweep")
        assert ajs("domain create --or-show sweep")["id"] == made["id"]
        assert "sweep" in names("domain list --enabled") and names("domain list --name sweep") == ["sweep"]
        admin("domain set --name sweep2 --description other --disable sweep")
        shows("domain show sweep2", ADMIN, description="other", enabled=False)
        assert "sweep2" not in names("domain list --enabled")
        admin("domain set --immutable sweep2")
        refused("domain delete sweep2", "immutable", ADMIN)
        admin("domain set --no-immutable sweep2")
        admin("domain delete sweep2")
        refused("domain show sweep2", "No domain", ADMIN)


def test_projects():
    with undone("project delete sweep-child", "project delete sweep2", "project delete sweep"):
        made = ajs("project create --description x --property color=blue --tag one --tag two sweep")
        assert made["color"] == "blue" and sorted(made["tags"]) == ["one", "two"], made
        assert ajs("project create --or-show sweep")["id"] == made["id"]
        child = ajs("project create --parent sweep --disable sweep-child")
        assert child["parent_id"] == made["id"] and child["enabled"] is False
        assert names("project list --parent sweep") == ["sweep-child"]
        assert names("project list --tags one,two") == ["sweep"] and "sweep" in names("project list --tags-any one,nine")
        assert "sweep" not in names("project list --not-tags one") and "sweep" not in names("project list --not-tags-any one")
        assert "sweep-child" in names("project list --disabled") and "sweep-child" not in names("project list --enabled")
        assert names("project list --sort name:asc") == sorted(names("project list"), key=str)
        assert len(ajs("project list --long")[0]) > 2
        assert child["id"] in json.dumps(ajs("project show --children sweep")["subtree"])
        assert made["id"] in json.dumps(ajs("project show --parents sweep-child")["parents"])
        admin("project set --name sweep2 --description y --property color=red --remove-tag one sweep")
        shows("project show sweep2", ADMIN, description="y", color="red", tags=["two"])
        admin("project set --tag three sweep2")
        assert sorted(ajs("project show sweep2")["tags"]) == ["three", "two"]
        admin("project set --clear-tags --disable sweep2")
        shows("project show sweep2", ADMIN, tags=[], enabled=False)
        admin("project set --enable --immutable sweep2")
        refused("project delete sweep2", "immutable", ADMIN)
        admin("project set --no-immutable sweep2")
        refused("project delete sweep2", "", ADMIN)
        admin("project delete sweep-child sweep2")
        refused("project show sweep2", "No project", ADMIN)
    assert column("project list --my-projects") == ["demo"]


def test_users():
    with undone("user delete sweep2", "user delete sweep", "project delete sweep-users"):
        project = ajs("project create sweep-users")["id"]
        made = ajs("user create --project sweep-users --password secret --email a@example.org --description x "
                   "--ignore-password-expiry --multi-factor-auth-rule password --multi-factor-auth-rule password,totp sweep")
        assert made["email"] == "a@example.org" and made["default_project_id"] == project and made["options"]["ignore_password_expiry"]
        assert ajs("user create --or-show sweep")["id"] == made["id"]
        assert "sweep" in names("user list --long") and "sweep" in names("user list --enabled --domain default")
        admin("role add --project sweep-users --user sweep member")
        assert names("user list --project sweep-users") == ["sweep"]
        assert names("project list --user sweep") == ["sweep-users"]
        admin("user set --name sweep2 --email b@example.org --description y --disable sweep")
        shows("user show sweep2", ADMIN, email="b@example.org", description="y", enabled=False)
        assert "sweep2" in names("user list --disabled")
        admin("user set --enable --enable-lock-password --enable-multi-factor-auth --password other sweep2")
        options = ajs("user show --domain default sweep2")["options"]
        assert options["lock_password"] and options["multi_factor_auth_enabled"], options
        admin("user set --disable-lock-password --disable-multi-factor-auth --no-ignore-password-expiry sweep2")
        options = ajs("user show sweep2")["options"]
        assert not any(options[key] for key in ("lock_password", "multi_factor_auth_enabled", "ignore_password_expiry")), options
        who = {"username": "sweep2", "user_domain_id": "default", "project_id": project}
        run("user password set --original-password other --password third", options=login("v3password", password="other", **who))
        refused("token issue", "401", options=login("v3password", password="other", **who))
        assert js("token issue", options=login("v3password", password="third", **who))["project_id"] == project
        admin("user delete sweep2")
        refused("user show sweep2", "No user", ADMIN)


def test_groups():
    with undone("group delete sweep2", "group delete sweep", "user delete sweep-member"):
        admin("user create sweep-member")
        made = ajs("group create --domain default --description x sweep")
        assert ajs("group create --or-show sweep")["id"] == made["id"]
        admin("group add user sweep sweep-member")
        assert "sweep-member in group sweep" in admin("group contains user sweep sweep-member") + said[0]
        assert names("user list --group sweep") == ["sweep-member"] and names("group list --user sweep-member") == ["sweep"]
        assert "sweep" in names("group list --domain default --long")
        admin("group remove user sweep sweep-member")
        assert "sweep-member not in group sweep" in admin("group contains user sweep sweep-member") + said[0]
        admin("group set --name sweep2 --description y sweep")
        shows("group show --domain default sweep2", ADMIN, description="y")
        admin("group delete sweep2")
        refused("group show sweep2", "No group", ADMIN)


def test_roles_and_assignments():
    with undone("role delete sweep2", "role delete sweep", "role delete --domain default sweep-domain", "role delete sweep-implied",
                "project delete sweep-roles", "user delete sweep-roles", "group delete sweep-roles"):
        project, user, group = (ajs(f"{kind} create sweep-roles")["id"] for kind in ("project", "user", "group"))
        made = ajs("role create --description x sweep")
        assert ajs("role create --or-show sweep")["id"] == made["id"]
        admin("role create --domain default sweep-domain")
        assert "sweep-domain" in names("role list --domain default") and "sweep-domain" not in names("role list")
        admin("role set --name sweep2 --description y --immutable sweep")
        shows("role show sweep2", ADMIN, description="y")
        refused("role delete sweep2", "immutable", ADMIN)
        admin("role set --no-immutable sweep2")
        places = {f"--project {project}": "Project", "--domain default": "Domain", "--system all": "System"}
        for place in places:
            for who in (f"--user {user}", f"--group {group}"):
                admin(f"role add {place} {who} sweep2")
                assert len(ajs(f"role assignment list {place} {who} --role sweep2")) == 1
                admin(f"role remove {place} {who} sweep2")
                assert ajs(f"role assignment list {place} {who} --role sweep2") == []
        admin(f"role add --inherited --domain default --user {user} sweep2")
        assert ajs(f"role assignment list --user {user} --inherited")[0]["Inherited"] is True
        effective = ajs(f"role assignment list --user {user} --effective --project {project} --names")
        assert [row["Role"] for row in effective] == ["sweep2"] or [row["Role"] for row in effective] == ["sweep2@"], effective
        admin(f"role remove --inherited --domain default --user {user} sweep2")
        admin("role create sweep-implied")
        admin("implied role create --implied-role sweep-implied sweep2")
        assert ("sweep2", "sweep-implied") in [(r["Prior Role Name"], r["Implied Role Name"]) for r in ajs("implied role list")]
        admin("implied role delete --implied-role sweep-implied sweep2")
        assert "sweep-implied" not in str(ajs("implied role list"))
        admin("role delete sweep2")
        refused("role show sweep2", "No role", ADMIN)
    assert [row["Role"] for row in ajs("role assignment list --auth-user --auth-project --names")]


def test_regions_services_and_endpoints():
    with undone("endpoint group delete sweep-group", "service delete sweep2", "service delete sweep", "region delete sweep-child",
                "region delete sweep", "project delete sweep-endpoints"):
        admin("region create --description x sweep")
        admin("region create --parent-region sweep sweep-child")
        assert names("region list --parent-region sweep", "Region") == ["sweep-child"]
        admin("region set --description y sweep")
        shows("region show sweep", ADMIN, description="y")
        refused("region delete sweep", "", ADMIN)
        service = ajs("service create --name sweep --description x --disable sweep-type")["id"]
        admin(f"service set --name sweep2 --type other-type --description y --enable {service}")
        shows("service show sweep2", ADMIN, type="other-type", description="y", enabled=True)
        assert "sweep2" in names("service list --long")
        one = ajs("endpoint create --region sweep --disable sweep2 public http://127.0.0.1:1/one")["id"]
        assert names("endpoint list --service sweep2 --interface public --region sweep", "ID") == [one]
        admin(f"endpoint set --url http://127.0.0.1:1/two --interface internal --enable --region sweep-child --service sweep2 {one}")
        shows(f"endpoint show {one}", ADMIN, url="http://127.0.0.1:1/two", interface="internal", enabled=True, region="sweep-child")
        project = ajs("project create sweep-endpoints")["id"]
        admin(f"endpoint add project {one} {project}")
        assert names(f"endpoint list --project {project}", "ID") == [one]
        assert names(f"endpoint list --endpoint {one}", "ID") == [project]
        admin(f"endpoint remove project {one} {project}")
        assert names(f"endpoint list --project {project}", "ID") == []
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump({"interface": "internal"}, f)
            f.flush()
            admin(f"endpoint group create --description x sweep-group {f.name}")
            admin(f"endpoint group set --name sweep-group --description y --filters {f.name} sweep-group")
        shows("endpoint group show sweep-group", ADMIN, description="y", filters={"interface": "internal"})
        admin(f"endpoint group add project sweep-group {project}")
        assert names(f"endpoint group list --project {project}") == ["sweep-group"]
        assert len(ajs("endpoint group list --endpointgroup sweep-group")) == 1
        admin(f"endpoint group remove project sweep-group {project}")
        admin("endpoint group delete sweep-group")
        assert "sweep-group" not in names("endpoint group list")
        admin(f"endpoint delete {one}")
        admin("service delete sweep2")
        admin("region delete sweep-child")
        admin("region delete sweep")
        assert "sweep" not in names("region list", "Region")


def test_catalog_and_tokens():
    catalog = {row["Type"]: row for row in js("catalog list")}
    assert {"compute", "identity", "image", "network", "placement"} <= set(catalog)
    assert js("catalog show compute")["name"] == "nova"
    assert column("federation project list") == ["demo"] and js("federation domain list") == []
    token = js("token issue")
    with_token = {"token": token["id"], "project_id": token["project_id"]}
    fresh = js("token issue", options=login("v3token", **with_token))["id"]
    assert js("server list", options=login("v3token", token=fresh, project_id=token["project_id"]))
    run(f"token revoke {fresh}")
    refused("server list", "token", options=login("v3token", token=fresh, project_id=token["project_id"]))


def test_credentials():
    with undone("user delete sweep-credentials"):
        user = ajs("user create sweep-credentials")["id"]
        made = ajs(f"credential create --type cert --project admin {user} one")["id"]
        assert names(f"credential list --user {user} --type cert", "ID") == [made]
        project = ajs("project show admin")["id"]
        admin(f"credential set --user {user} --type cert --project {project} --data two {made}")
        shows(f"credential show {made}", ADMIN, type="cert", blob="two")
        admin(f"credential delete {made}")
        assert made not in names("credential list", "ID")
    key = js("ec2 credentials create")["access"]
    assert js(f"ec2 credentials show {key}")["access"] == key and key in column("ec2 credentials list", "Access")
    run(f"ec2 credentials delete {key}")
    assert key not in column("ec2 credentials list", "Access")


def test_application_credentials_and_access_rules():
    rules = json.dumps([{"service": "compute", "method": "GET", "path": "/v2.1/servers/detail"}])
    with undone("application credential delete sweep", cloud="drover"):
        made = js(f"application credential create --secret s3cret --role member --description x --access-rules '{rules}' "
                  "--expiration 2099-01-01T00:00:00 sweep")
        assert "sweep" in column("application credential list")
        shows("application credential show sweep", description="x", unrestricted=False)
        options = login("v3applicationcredential", application_credential_id=made["ID"], application_credential_secret="s3cret")
        assert js("token issue", options=options)["user_id"] == js("token issue")["user_id"]
        assert js("server list", options=options)
        refused("network list", "", options=options)
        run("application credential delete sweep")
        assert "sweep" not in column("application credential list")
    rule = column("access rule list", "ID")
    assert len(rule) >= 1
    shows(f"access rule show {rule[0]}", service="compute", method="GET")
    run(f"access rule delete {rule[0]}")
    assert rule[0] not in column("access rule list", "ID")


def test_trusts():
    with undone("user delete sweep-trustee"):
        trustee = ajs("user create sweep-trustee")["id"]
        # A member may not look names up, so the client passes on what it was given: ids.
        me, role = js("token issue"), ajs("role show member")["id"]
        made = js(f"trust create --project {me['project_id']} --role {role} --impersonate --expiration 2099-01-01T00:00:00 "
                  f"{me['user_id']} {trustee}")["id"]
        shows(f"trust show {made}", is_impersonation=True, trustee_user_id=trustee)
        assert made in column("trust list --auth-user", "ID") and made in names("trust list --trustee sweep-trustee", "ID")
        run(f"trust delete {made}")
        refused(f"trust show {made}", "")


def test_limits():
    with undone("service delete sweep-limits", "project delete sweep-limits"):
        admin("service create --name sweep-limits sweep-limits")
        project = ajs("project create sweep-limits")["id"]
        registered = ajs("registered limit create --description x --service sweep-limits --default-limit 5 --region RegionOne things")["id"]
        assert names("registered limit list --service sweep-limits --resource-name things --region RegionOne", "ID") == [registered]
        admin(f"registered limit set --default-limit 6 --description y {registered}")
        shows(f"registered limit show {registered}", ADMIN, default_limit=6, description="y")
        made = ajs(f"limit create --description x --region RegionOne --project {project} --service sweep-limits "
                   "--resource-limit 7 things")["id"]
        assert names(f"limit list --service sweep-limits --resource-name things --project {project}", "ID") == [made]
        admin(f"limit set --resource-limit 8 --description y {made}")
        shows(f"limit show {made}", ADMIN, resource_limit=8, description="y")
        refused(f"registered limit delete {registered}", "", ADMIN)
        admin(f"limit delete {made}")
        admin(f"registered limit delete {registered}")
        assert registered not in names("registered limit list", "ID")


def test_policies_and_consumers():
    with tempfile.NamedTemporaryFile("w") as f:
        f.write("{}")
        f.flush()
        made = ajs(f"policy create --type application/json {f.name}")["id"]
        admin(f"policy set --type text/plain --rules {f.name} {made}")
    shows(f"policy show {made}", ADMIN, type="text/plain", rules="{}")
    assert made in names("policy list --long", "ID")
    admin(f"policy delete {made}")
    assert made not in names("policy list", "ID")
    made = ajs("consumer create --description x")["id"]
    admin(f"consumer set --description y {made}")
    shows(f"consumer show {made}", ADMIN, description="y")
    admin(f"consumer delete {made}")
    assert made not in names("consumer list", "ID")
