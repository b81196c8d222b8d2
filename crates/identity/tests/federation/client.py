"""keystoneauth's own logins by OpenID Connect: client.py AUTH_URL PROVIDER PROJECT ACCESS_TOKEN; prints who each of them is."""

import json
import sys

from keystoneauth1 import session
from keystoneauth1.identity.v3 import OidcAccessToken, OidcClientCredentials, OidcPassword

auth_url, provider, project, access_token = sys.argv[1:]
common = {"auth_url": auth_url, "identity_provider": "corp", "protocol": "openid"}
client = {
    "client_id": "cloud",
    "client_secret": "secret of cloud",
    "discovery_endpoint": f"{provider}/.well-known/openid-configuration",
    "scope": "openid",
}
plugins = {
    "v3oidcpassword": OidcPassword(**common, **client, username="ada", password="password of ada", project_id=project),
    "v3oidcaccesstoken": OidcAccessToken(**common, access_token=access_token, project_id=project),
    "v3oidcclientcredentials": OidcClientCredentials(**common, **client),
}
out = {}
for name, plugin in plugins.items():
    there = session.Session(auth=plugin)
    access = plugin.get_access(there)
    out[name] = {"user": access.username, "project": access.project_id, "roles": sorted(access.role_names)}
    projects = there.get(f"{auth_url}/OS-FEDERATION/projects").json()["projects"]
    out[name]["projects"] = [p["name"] for p in projects]
print(json.dumps(out))
