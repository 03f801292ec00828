-- Synthetic labelled texts :first to :last, with the answers of :annotators annotators. Everything follows from the
-- number of a text, so that running it again changes nothing.

create temp table demo on commit drop as
select number,
       dataset_text,
       -- core.text_identity.text_id: SHA-256 of dataset, NUL, text; version 8 and variant set
       encode(
           set_byte(
               set_byte(digest, 6, get_byte(digest, 6) & 15 | 128),
               8, get_byte(digest, 8) & 63 | 128
           ), 'hex'
       )::uuid as id,
       hash % 100 < 40 as toxic,
       abs(hashint8extended(number, 7)) % 1000 as chance,
       -- one text a second, the last one a minute ago
       now() - interval '1 minute' - make_interval(secs => number) as happened_at
from (
    select number,
           dataset_text,
           abs(hashint8extended(number, 1)) as hash,
           substring(
               sha256(convert_to(:dataset, 'UTF8') || '\x00'::bytea || convert_to(dataset_text, 'UTF8')) from 1 for 16
           ) as digest
    from (
        select number,
               format(
                   '%s %s %s, and %s. (demo text %s)',
                   (array['I think', 'Honestly', 'Well', 'Listen', 'To be fair', 'As always'])[1 + number % 6],
                   (array['this update', 'your answer', 'that video', 'the new map', 'their team'])[1 + number / 6 % 5],
                   (array['is great', 'is a joke', 'made my day', 'is pure garbage', 'works fine'])[1 + number / 30 % 5],
                   (array['you should be ashamed', 'I would do it again', 'nobody asked you', 'thanks for that'])
                       [1 + number / 150 % 4],
                   number
               ) as dataset_text
        from generate_series(cast(:first as bigint), cast(:last as bigint)) as number
    ) as texts
) as digests;

-- Without statistics the joins below may compare each row with each.
analyze demo;

-- -> demo: no uploader touches these texts. -> pending, with --argilla: the uploader brings them to Argilla, and
-- restores the answers to their annotators.
insert into texts (id, dataset, text, claimed_label, score, source, external_id, metadata, received_at, status,
                   attempts, uploaded_at, completed_at)
select id, :dataset, dataset_text, case when toxic then 'toxic' else 'non_toxic' end, chance / 1000.0, :source,
       'demo-' || number, jsonb_build_object('number', number), happened_at - interval '2 hours', cast(:status as varchar),
       1, case when cast(:status as varchar) = 'demo' then happened_at - interval '1 hour' end, happened_at
from demo
on conflict (id) do update set status = excluded.status, uploaded_at = null
where texts.status = 'demo' and excluded.status = 'pending';

delete from demo using texts where texts.id = demo.id and texts.status = 'forgotten';

-- Annotator k is wrong in 5 k percent of the texts.
insert into annotations (text_id, response_id, annotator_id, annotator, status, value, answers, created_at,
                         updated_at, seen_at)
select id,
       md5(format('%s/%s', id, k))::uuid,
       md5(format('annotator_%s', k))::uuid,
       format('annotator_%s', k),
       'submitted',
       value,
       jsonb_build_object('label', value),
       happened_at, happened_at, happened_at
from demo
cross join generate_series(1, cast(:annotators as int)) as k
cross join lateral (
    select case when toxic <> (abs(hashint8extended(number, k + 10)) % 100 < least(5 * k, 45))
                then 'toxic' else 'non_toxic' end as value
) as answer
on conflict do nothing;

-- As core.labels.rules.majority.
insert into labels (text_id, dataset, label, status, agreement, confidence, votes, annotations, labelled_at)
select id, :dataset,
       case when 2 * toxic_votes > votes then 'toxic' when 2 * toxic_votes < votes then 'non_toxic' end,
       case when 2 * toxic_votes = votes then 'disputed' else 'labelled' end,
       greatest(toxic_votes, votes - toxic_votes)::float8 / votes,
       case when 2 * toxic_votes <> votes then greatest(toxic_votes, votes - toxic_votes)::float8 / votes end,
       jsonb_strip_nulls(jsonb_build_object(
           'toxic', nullif(toxic_votes, 0), 'non_toxic', nullif(votes - toxic_votes, 0)
       )),
       votes,
       happened_at
from demo
join (
    select text_id, count(*) as votes, count(*) filter (where value = 'toxic') as toxic_votes
    from annotations
    where text_id in (select id from demo) and status = 'submitted' and withdrawn_at is null
    group by text_id
) as counted on counted.text_id = demo.id
on conflict (text_id) do update
set label = excluded.label, status = excluded.status, agreement = excluded.agreement,
    confidence = excluded.confidence, votes = excluded.votes, annotations = excluded.annotations, changed_xid = pg_current_xact_id()
where labels.votes <> excluded.votes;
