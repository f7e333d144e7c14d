// fhir-kit-client as its users write it, against the server at BASE_URL. Run by `node --test`, from tests/server/test_fhir_kit_client.py.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CapabilityTool, Client } from 'fhir-kit-client';

const { BASE_URL, TOKEN, STUDY_ID, PATIENT_ID } = process.env;
const client = new Client({ baseUrl: BASE_URL, bearerToken: TOKEN });
const condition = () => ({
  resourceType: 'Condition',
  clinicalStatus: { text: 'active' },
  code: { coding: [{ system: 'http://snomed.info/sct', code: '125605004' }] },
  subject: { reference: `Patient/${PATIENT_ID}` },
});
const created = () => client.create({ resourceType: 'Condition', body: condition() });
const resources = (bundle) => (bundle.entry ?? []).map((entry) => entry.resource);
const refused = (status, expression) => (error) => {
  assert.equal(error.response.status, status);
  assert.equal(error.response.data.resourceType, 'OperationOutcome');
  if (expression) assert.deepEqual(error.response.data.issue[0].expression, [expression]);
  return true;
};

test('the capability statement says what there is', async () => {
  const statement = await client.capabilityStatement();
  const tool = new CapabilityTool(statement);
  assert.equal(statement.fhirVersion, '5.0.0');
  assert.ok(tool.serverCan('transaction') && tool.serverCan('history-system'));
  assert.ok(tool.resourceCan('Condition', 'patch') && tool.resourceSearch('Condition', 'code'));
  assert.ok(tool.interactionsFor({ resourceType: 'ImagingStudy' }).includes('read'));
});

test('where tokens are given is found by smart-configuration', async () => {
  const { tokenUrl } = await client.smartAuthMetadata();
  assert.equal(tokenUrl.href, new URL('/auth/token', BASE_URL).href);
});

test('create, read and vread give the same resource, and its version', async () => {
  const made = await created();
  const { response } = Client.httpFor(made);
  assert.equal(response.status, 201);
  assert.equal(response.headers.get('location'), `${BASE_URL}/Condition/${made.id}/_history/1`);
  assert.deepEqual(await client.read({ resourceType: 'Condition', id: made.id }), made);
  assert.deepEqual(await client.vread({ resourceType: 'Condition', id: made.id, version: '1' }), made);
});

test('update is by id or by a search, and minds If-Match', async () => {
  const made = await created();
  const changed = { ...made, clinicalStatus: { text: 'resolved' } };
  const options = { headers: { 'If-Match': 'W/"1"' } };
  const updated = await client.update({ resourceType: 'Condition', id: made.id, body: changed, options });
  assert.equal(updated.meta.versionId, '2');
  await assert.rejects(
    client.update({ resourceType: 'Condition', id: made.id, body: { ...changed, recordedDate: '2024' }, options }),
    refused(412),
  );
  const found = await client.update({ resourceType: 'Condition', searchParams: { _id: made.id }, body: { ...condition(), recordedDate: '2024' } });
  assert.deepEqual([found.id, found.meta.versionId], [made.id, '3']);
});

test('a JSON Patch changes what it names', async () => {
  const made = await created();
  const jsonPatch = [{ op: 'replace', path: '/clinicalStatus/text', value: 'resolved' }];
  assert.equal((await client.patch({ resourceType: 'Condition', id: made.id, jsonPatch })).clinicalStatus.text, 'resolved');
  const fails = [{ op: 'test', path: '/clinicalStatus/text', value: 'active' }];
  await assert.rejects(client.patch({ resourceType: 'Condition', id: made.id, jsonPatch: fails }), refused(422));
});

test('what is deleted is gone, and its history says so', async () => {
  const made = await created();
  await client.delete({ resourceType: 'Condition', id: made.id });
  await assert.rejects(client.read({ resourceType: 'Condition', id: made.id }), refused(410));
  const history = await client.history({ resourceType: 'Condition', id: made.id });
  assert.deepEqual(history.entry.map((entry) => entry.request.method), ['DELETE', 'POST']);
});

test('a search by GET and one by POST find the same', async () => {
  const made = await created();
  const searchParams = { code: 'http://snomed.info/sct|125605004', _id: [made.id], _include: 'Condition:subject' };
  const found = await client.search({ resourceType: 'Condition', searchParams });
  assert.deepEqual(resources(found).map((one) => one.resourceType), ['Condition', 'Patient']);
  const posted = await client.search({ resourceType: 'Condition', searchParams, options: { postSearch: true } });
  assert.deepEqual(posted.entry, found.entry);
  await assert.rejects(client.search({ resourceType: 'Condition', searchParams: { nonsense: '1' } }), refused(400, 'http.nonsense'));
});

test('the system is searched by type, by GET and by POST', async () => {
  const searchParams = { _type: 'ImagingStudy,Patient' };
  const found = await client.search({ searchParams });
  assert.deepEqual(new Set(resources(found).map((one) => one.resourceType)), new Set(['ImagingStudy', 'Patient']));
  assert.deepEqual((await client.search({ searchParams, options: { postSearch: true } })).entry, found.entry);
});

test('pages go on until there are no more, each resource once', async () => {
  let page = await client.search({ resourceType: 'Observation', searchParams: { _count: '3', _total: 'accurate' } });
  const { total } = page;
  const seen = [];
  for (; page; page = await client.nextPage({ bundle: page })) {
    assert.ok(resources(page).length <= 3);
    seen.push(...resources(page).map((one) => one.id));
  }
  assert.equal(new Set(seen).size, total);
  assert.equal(seen.length, total);
});

test('there is no way back from the first page', async () => {
  const bundle = await client.search({ resourceType: 'Observation', searchParams: { _count: '1' } });
  assert.equal(await client.prevPage({ bundle }), undefined);
});

test('a compartment is searched', async () => {
  const compartment = { resourceType: 'Patient', id: PATIENT_ID };
  const studies = await client.search({ resourceType: 'ImagingStudy', compartment });
  assert.deepEqual(resources(studies).map((one) => one.id), [STUDY_ID]);
  const posted = await client.search({ resourceType: 'ImagingStudy', compartment, searchParams: { modality: 'MR' }, options: { postSearch: true } });
  assert.equal(posted.total, 0);
});

test('histories of a resource, a type and the system', async () => {
  const made = await created();
  assert.equal((await client.history({ resourceType: 'Condition', id: made.id })).total, 1);
  assert.equal(resources(await client.history({ resourceType: 'Condition' }))[0].id, made.id);
  assert.ok(resources(await client.history()).some((one) => one?.id === made.id));
});

test('operations by GET and by POST', async () => {
  const everything = await client.operation({ name: 'everything', resourceType: 'ImagingStudy', id: STUDY_ID, method: 'GET' });
  assert.ok(resources(everything).some((one) => one.resourceType === 'Observation'));
  const outcome = await client.operation({ name: '$validate', resourceType: 'Condition', input: { resourceType: 'Condition' } });
  assert.ok(outcome.issue.some((issue) => issue.expression?.[0] === 'Condition.subject'));
});

test('a batch answers each entry by itself', async () => {
  const entry = [
    { request: { method: 'GET', url: `ImagingStudy/${STUDY_ID}` } },
    { request: { method: 'GET', url: 'ImagingStudy/none' } },
    { request: { method: 'POST', url: 'Condition' }, resource: condition() },
  ];
  const answer = await client.batch({ body: { resourceType: 'Bundle', type: 'batch', entry } });
  assert.deepEqual(answer.entry.map((one) => one.response.status.slice(0, 3)), ['200', '404', '201']);
});

test('a transaction is all or nothing, and its references become those of what was made', async () => {
  const entry = [
    { fullUrl: 'urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a', request: { method: 'POST', url: 'Condition' }, resource: condition() },
    {
      request: { method: 'POST', url: 'Observation' },
      resource: {
        resourceType: 'Observation',
        status: 'final',
        code: { text: 'size' },
        subject: { reference: `Patient/${PATIENT_ID}` },
        focus: [{ reference: 'urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a' }],
      },
    },
  ];
  const transaction = { resourceType: 'Bundle', type: 'transaction', entry };
  const answer = await client.transaction({ body: transaction });
  const [made, about] = answer.entry.map((one) => one.response.location.replace(`${BASE_URL}/`, '').split('/_history/')[0]);
  const observation = await client.resolve({ reference: about });
  assert.equal(observation.focus[0].reference, made);
  const before = (await client.search({ resourceType: 'Condition', searchParams: { _summary: 'count' } })).total;
  const broken = { ...transaction, entry: [entry[0], { ...entry[1], resource: { resourceType: 'Observation' } }] };
  await assert.rejects(client.transaction({ body: broken }), refused(400));
  assert.equal((await client.search({ resourceType: 'Condition', searchParams: { _summary: 'count' } })).total, before);
});

test('references are resolved: relative, absolute, in a Bundle, contained', async () => {
  const study = await client.read({ resourceType: 'ImagingStudy', id: STUDY_ID });
  const { reference } = study.subject;
  assert.equal((await client.resolve({ reference })).id, PATIENT_ID);
  assert.equal((await client.resolve({ reference: `${BASE_URL}/${reference}` })).id, PATIENT_ID);
  const context = await client.search({ resourceType: 'ImagingStudy', searchParams: { _id: STUDY_ID, _include: 'ImagingStudy:patient' } });
  assert.equal((await client.resolve({ reference, context })).id, PATIENT_ID);
  const contained = { ...condition(), contained: [{ resourceType: 'Practitioner', id: 'doctor' }] };
  assert.equal((await client.resolve({ reference: '#doctor', context: contained })).id, 'doctor');
});

test('refusals come as OperationOutcomes', async () => {
  await assert.rejects(client.read({ resourceType: 'Condition', id: 'none' }), refused(404));
  await assert.rejects(client.read({ resourceType: 'Nonsense', id: '1' }), refused(404));
  await assert.rejects(client.create({ resourceType: 'Condition', body: { ...condition(), nonsense: 1 } }), refused(400, 'Condition.nonsense'));
  const stranger = new Client({ baseUrl: BASE_URL, bearerToken: 'wrong' });
  await assert.rejects(stranger.search({ resourceType: 'Condition' }), refused(401));
});
