//! Projects with their clusters, snapshots and people, and the people and teams of the one organisation.
//!
//! Flex clusters and sharded snapshots are not simulated. It is not known whether the list of a
//! project's people marks the roles that come from a team or the organisation; here it does not.

use serde_json::{Value, json};

use super::answer::{Refusal, SimReply, SimResult, refuse};
use super::ask::Ask;
use super::check::is_object_id;
use super::ids::{ORG, object_id};
use super::world::{Project, Role, Snapshot, User, Via, World};

/// The project that a path names.
pub(super) fn find<'a>(world: &'a mut World, ask: &Ask) -> Result<&'a mut Project, Refusal> {
    let group = ask.param("group");
    if !is_object_id(group) {
        return Err(refuse(404, "INVALID_GROUP_ID", format!("{group} is no id of a project.")).about(group));
    }
    world
        .projects
        .get_mut(group)
        .ok_or_else(|| refuse(404, "GROUP_NOT_FOUND", format!("There is no project {group}.")).about(group))
}

fn group_view(id: &str, project: &Project) -> Value {
    json!({
        "id": id, "name": project.name, "orgId": ORG, "clusterCount": project.clusters.len(),
        "created": "2024-01-01T00:00:00Z", "links": [],
        "tags": project.tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect::<Vec<_>>(),
    })
}

/// The projects that the credential can see.
#[expect(clippy::unnecessary_wraps, reason = "a handler like the others")]
pub(super) fn groups(world: &mut World, ask: &Ask) -> SimResult {
    let seen = world.projects.iter().filter(|(_, it)| world.role(&ask.who, it) != Role::None);
    Ok(SimReply::List(seen.map(|(id, it)| group_view(id, it)).collect()))
}

pub(super) fn group(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    Ok(SimReply::One(group_view(ask.param("group"), project)))
}

/// Private endpoints; no project has any.
pub(super) fn endpoints(world: &mut World, ask: &Ask) -> SimResult {
    find(world, ask)?;
    Ok(SimReply::List(Vec::new()))
}

pub(super) fn clusters(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    let provider = if project.provider.is_empty() { "NONE" } else { &project.provider };
    let region = match provider {
        "AZURE" => "EUROPE_WEST",
        "GCP" => "EUROPE_WEST_3",
        _ => "EU_CENTRAL_1",
    };
    let view = |it: &super::world::Cluster| {
        json!({
            "id": object_id(&[ask.param("group"), &it.name]), "groupId": ask.param("group"), "name": it.name,
            "paused": it.paused, "encryptionAtRestProvider": provider, "clusterType": "REPLICASET",
            "stateName": project.cluster_state(it, ask.now),
            "replicationSpecs": [{ "zoneName": "Zone 1", "regionConfigs": [{
                "providerName": provider, "regionName": region, "priority": 7,
                "electableSpecs": { "instanceSize": it.tier.as_deref().unwrap_or("M30"), "nodeCount": 3 },
            }] }],
        })
    };
    Ok(SimReply::List(project.clusters.iter().map(view).collect()))
}

/// The backups of one cluster.
pub(super) fn snapshots(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    let name = ask.param("cluster");
    let cluster = project.clusters.iter().find(|it| it.name == name);
    let cluster = cluster.ok_or_else(|| {
        refuse(404, "CLUSTER_NOT_FOUND", format!("There is no cluster {name}.")).about(name)
    })?;
    let view = |it: &Snapshot| {
        let mut view = json!({
            "id": object_id(&[ask.param("group"), name, &it.created_at.to_string()]),
            "createdAt": it.created_at, "expiresAt": it.expires_at, "status": "completed",
            "snapshotType": "scheduled", "type": "replicaSet", "cloudProvider": project.provider,
        });
        // The field is documented for keys of AWS only, as the bare id.
        let bare = it.key.as_deref().map(|key| key.rsplit("key/").next().unwrap_or(key));
        if let Some(bare) = bare.filter(|bare| !bare.contains('/')) {
            view["masterKeyUUID"] = json!(bare);
        }
        view
    };
    Ok(SimReply::List(cluster.snapshots.iter().map(view).collect()))
}

/// The people of a project; those who come with a team or the organisation only when asked for.
pub(super) fn users(world: &mut World, ask: &Ask) -> SimResult {
    let with = |name| ask.flag(name).unwrap_or(false);
    let (teams, org) = (with("flattenTeams"), with("includeOrgUsers"));
    let mut seen = {
        let project = find(world, ask)?;
        let shown = |it: &&User| match it.via {
            Via::Project => true,
            Via::Team => teams,
            Via::Org => org,
        };
        project.users.iter().filter(shown).cloned().collect::<Vec<_>>()
    };
    if teams {
        let own = find(world, ask)?.teams.clone();
        for (id, roles) in own {
            let members = world.teams.get(&id).into_iter().flat_map(|team| &team.members);
            seen.extend(members.map(|it| User { roles: roles.clone(), ..it.clone() }));
        }
    }
    if org {
        seen.extend(world.org_users.iter().cloned());
    }
    let view = |it: &User| person(it, &json!(it.roles));
    Ok(SimReply::List(seen.iter().map(view).collect()))
}

/// A person who has not accepted the invitation has no name yet, only an address.
fn person(it: &User, roles: &Value) -> Value {
    json!({
        "id": object_id(&[&it.username]), "username": it.username, "roles": roles,
        "orgMembershipStatus": it.status,
    })
}

/// The teams of a project.
pub(super) fn teams(world: &mut World, ask: &Ask) -> SimResult {
    let project = find(world, ask)?;
    let view =
        |(id, roles): (&String, &Vec<String>)| json!({ "teamId": id, "roleNames": roles, "links": [] });
    Ok(SimReply::List(project.teams.iter().map(view).collect()))
}

/// Only members of the organisation may read it.
fn of_org(world: &World, ask: &Ask) -> Result<(), Refusal> {
    let org = ask.param("org");
    if org != ORG {
        return Err(refuse(404, "RESOURCE_NOT_FOUND", format!("There is no organisation {org}.")).about(org));
    }
    if world.no_org.contains(&ask.who) {
        return Err(refuse(401, "USER_UNAUTHORIZED", "The credential lacks the role for this."));
    }
    Ok(())
}

/// The people of the organisation; their roles stand one level deeper than in a project.
pub(super) fn org_users(world: &mut World, ask: &Ask) -> SimResult {
    of_org(world, ask)?;
    let view = |it: &User| person(it, &json!({ "orgRoles": it.roles, "groupRoleAssignments": [] }));
    Ok(SimReply::List(world.org_users.iter().map(view).collect()))
}

/// A service account with its secret; another credential's is not shown here.
pub(super) fn service_account(world: &mut World, ask: &Ask) -> SimResult {
    of_org(world, ask)?;
    let id = ask.param("client");
    let unknown =
        || refuse(404, "SERVICE_ACCOUNT_NOT_FOUND", format!("There is no service account {id}.")).about(id);
    let secret = world.service_accounts.get(id).ok_or_else(unknown)?;
    let ends = world.secret_ends.get(id).ok_or_else(unknown)?;
    let tail: String = secret.chars().skip(secret.chars().count().saturating_sub(4)).collect();
    let secrets = json!([{ "id": "65aa00000000000000000101", "maskedSecretValue": format!("mdb_sa_sk_****{tail}"), "expiresAt": ends }]);
    Ok(SimReply::One(
        json!({ "clientId": id, "name": "keywheel", "roles": ["ORG_MEMBER"], "secrets": secrets }),
    ))
}

fn find_team<'a>(world: &'a World, ask: &Ask) -> Result<&'a super::world::Team, Refusal> {
    of_org(world, ask)?;
    let id = ask.param("team");
    world
        .teams
        .get(id)
        .ok_or_else(|| refuse(404, "RESOURCE_NOT_FOUND", format!("There is no team {id}.")).about(id))
}

pub(super) fn team(world: &mut World, ask: &Ask) -> SimResult {
    let team = find_team(world, ask)?;
    Ok(SimReply::One(json!({ "id": ask.param("team"), "name": team.name, "links": [] })))
}

pub(super) fn team_users(world: &mut World, ask: &Ask) -> SimResult {
    let team = find_team(world, ask)?;
    let view = |it: &User| person(it, &json!({ "orgRoles": ["ORG_MEMBER"], "groupRoleAssignments": [] }));
    Ok(SimReply::List(team.members.iter().map(view).collect()))
}
