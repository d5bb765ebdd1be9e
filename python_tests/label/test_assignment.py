"""Who gets which task: enough labels of each, nobody twice, leases that lapse, equal choices in equal states."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from instructgpt_fast.label.store import Answer, Store
from instructgpt_fast.serve.errors import ApiError

from .labelled import Client, fill, filled, ranking, running, signed_in


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(path: Path, clock: Clock, prompts: int = 3, **options: Any) -> Store:
    store = Store(path / "labels.sqlite", clock=clock, lease_seconds=60.0, **options)
    fill(store, prompts)
    return store


def next_id(store: Store, labeler: int, kind: str = "demonstration") -> int | None:
    task, _ = store.next_task(labeler, kind)  # type: ignore[arg-type]
    return None if task is None else int(task["id"])


def finish(store: Store, labeler: int, task: int) -> None:
    store.save(labeler, task, 0, {"response": "x"}, "done")


def test_open_tasks_are_kept_from_others_until_the_lease_lapses(tmp_path: Path, clock: Clock) -> None:
    store = opened(tmp_path, clock, prompts=2)
    ann, ben, cleo = (store.sign_in(name).id for name in ("Ann", "Ben", "Cleo"))
    assert (next_id(store, ann), next_id(store, ben), next_id(store, cleo)) == (2, 4, None)
    assert next_id(store, ann) == 2  # a reload gives the same
    clock.now += 50
    store.save(ann, 2, 0, {"response": "so far"}, "draft")
    clock.now += 50  # Ben's lapsed, Ann's was renewed by her draft
    assert next_id(store, cleo) == 4
    clock.now += 11
    store.sign_in("Dora")
    assert next_id(store, 4) == 2
    assert next_id(store, ann) == 2  # her draft is hers, whoever else has it now
    finish(store, cleo, 4)
    assert next_id(store, ben) is None
    # What Ann had begun counts when it is finished, though Dora had it meanwhile.
    store.save(ann, 2, 1, {"response": "all"}, "done")
    finish(store, 4, 2)
    store.close()


def test_a_task_that_was_skipped_still_wants_its_label_from_others(tmp_path: Path, clock: Clock) -> None:
    store = opened(tmp_path, clock, prompts=1)
    ann, ben = store.sign_in("Ann").id, store.sign_in("Ben").id
    task = next_id(store, ann)
    assert task is not None
    store.save(ann, task, 0, {"response": ""}, "skipped")
    assert next_id(store, ann) is None
    assert next_id(store, ben) == task
    store.save(ann, task, 1, {"response": "after all"}, "done")  # and may be taken up again
    store.close()


def test_progress_counts_what_one_has_done_and_can_still_do(tmp_path: Path, clock: Clock) -> None:
    store = opened(tmp_path, clock, prompts=4)
    store.add_prompts(["a prompt whose answers are still being sampled"])
    ann, ben = store.sign_in("Ann").id, store.sign_in("Ben").id
    for status in ("done", "skipped", "draft"):
        task, _ = store.next_task(ann, "ranking")
        assert task is not None
        store.save(ann, task["id"], 0, ranking(task), status)  # type: ignore[arg-type]
    assert store.next_task(ann, "ranking")[1] == {
        "done": 1, "skipped": 1, "drafts": 1, "remaining": 2, "total": 4, "waiting": 1}
    assert store.next_task(ben, "ranking")[1]["remaining"] == 2  # not Ann's first, nor her draft
    assert store.next_task(ann, "demonstration")[1] == {
        "done": 0, "skipped": 0, "drafts": 0, "remaining": 5, "total": 5, "waiting": 0}
    store.close()


def test_the_fewest_labels_come_first_and_equal_states_choose_equally(tmp_path: Path, clock: Clock) -> None:
    histories = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        store = opened(tmp_path / run, clock, prompts=5, labels_per_task=2)
        given = []
        for turn in range(10):
            labeler = store.sign_in(f"labeler {turn % 3}").id
            task = next_id(store, labeler)
            given.append((labeler, task))
            if task is not None:
                finish(store, labeler, task)
        histories.append(given)
        store.close()
    assert histories[0] == histories[1]
    tasks = [task for _, task in histories[0]]
    assert tasks[:5] == [2, 4, 6, 8, 10]  # each once before any twice
    assert Counter(task for task in tasks if task) == dict.fromkeys((2, 4, 6, 8, 10), 2)


def test_choices_and_counts_are_those_of_the_rules_spelled_out(tmp_path: Path, clock: Clock) -> None:
    wanted, generator = 2, random.Random(0)
    store = opened(tmp_path, clock, prompts=7, labels_per_task=wanted)
    people = [store.sign_in(name).id for name in ("Ann", "Ben", "Cleo", "Dora")]
    chosen = []
    for _ in range(400):
        clock.now += generator.choice((1, 5, 40))
        labeler = generator.choice(people)
        labels = store._connection.execute("SELECT task_id, labeler_id, status, revision FROM labels").fetchall()
        leases = store._connection.execute("SELECT task_id, labeler_id, until FROM leases").fetchall()
        task, progress = store.next_task(labeler, "demonstration")
        found = None if task is None else task["id"]
        # The rules of label/tasks.py, in the words of Python.
        own = {label[0]: label[2] for label in labels if label[1] == labeler}
        claims = {
            one: sum(label[0] == one and label[2] == "done" for label in labels)
            + sum(lease[0] == one and lease[1] != labeler and lease[2] > clock.now for lease in leases)
            for one in range(2, 16, 2)
        }
        free = [one for one in claims if one not in own and claims[one] < wanted]
        drafts = [one for one, status in own.items() if status == "draft"]
        before = [one for one in free if any(lease[:2] == (one, labeler) for lease in leases)]
        if drafts:
            assert found in drafts
        elif before:
            assert found in before
        else:
            assert found == min(free, key=lambda one: (claims[one], one), default=None)
        assert progress["remaining"] == len(drafts) + len(free)
        assert progress["done"] == list(own.values()).count("done")
        chosen.append(found)
        if own and generator.random() < 0.1:  # an older label is looked at again
            found = generator.choice(list(own))
        if found is not None and generator.random() < 0.6:
            status = generator.choice(("done", "draft", "skipped") if own.get(found) != "done" else ("done", "skipped"))
            revision = next((label[3] for label in labels if label[:2] == (found, labeler)), 0)
            store.save(labeler, found, revision, {"response": f"{clock.now}"}, status)  # type: ignore[arg-type]
    assert None in chosen and len(set(chosen)) == 8
    counted = dict(store._connection.execute("SELECT task_id, sum(status = 'done') FROM labels GROUP BY task_id"))
    assert counted == dict(store._connection.execute("SELECT id, finished FROM tasks WHERE kind = 'demonstration'"))
    store.close()


def test_eight_labelers_at_once_finish_every_task_as_often_as_wanted_and_none_twice(tmp_path: Path) -> None:
    wanted = 3
    with running(filled(tmp_path / "labels.sqlite", prompts=12), labels_per_task=wanted) as server:
        def work(number: int) -> list[int]:
            with httpx.Client(base_url=server.url, timeout=60.0) as http:
                client: Client = signed_in(http, f"labeler {number}")
                done = []
                while (task := client.task()) is not None:
                    assert client.put(task["id"], 0, ranking(task)).status_code == 200
                    done.append(task["id"])
                return done

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(work, range(8)))
        assert all(len(set(own)) == len(own) for own in done)
        assert set(Counter(task for own in done for task in own).values()) == {wanted}
        assert sum(map(len, done)) == 12 * wanted


def test_of_two_tabs_the_second_gets_the_servers_copy_and_can_go_on_from_there(tmp_path: Path) -> None:
    with running(filled(tmp_path / "labels.sqlite")) as server:
        ann = signed_in(server.http, "Ann")
        task = ann.task()  # both tabs show it
        first, second = ranking(task, "0 1 2 3"), ranking(task, "3 2 1 0")
        assert ann.put(task["id"], 0, first).status_code == 200
        stale = ann.put(task["id"], 0, second)
        assert stale.status_code == 409
        copy = stale.json()
        assert "changed elsewhere" in copy.pop("error")
        assert copy == {**task, "status": "done", "revision": 1, "payload": first}
        assert ann.put(task["id"], copy["revision"], second).json() == {"revision": 2, "status": "done"}
        draft = ann.put(task["id"], 2, {**second, "ranking": []}, "draft")
        assert (draft.status_code, draft.json()["error"][:32]) == (422, "a finished label stays finished:")
        assert ann.again(task["id"])["payload"] == second


def test_one_of_many_equal_writes_at_once_wins_and_the_others_agree(tmp_path: Path) -> None:
    with running(filled(tmp_path / "labels.sqlite")) as server:
        ann = signed_in(server.http, "Ann")
        task = ann.task()
        payloads = [ranking(task, "0 1 2 3"), ranking(task, "3 2 1 0")]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda place: ann.put(task["id"], 0, payloads[place % 2]), range(16)))
        won = ann.again(task["id"])
        assert won["revision"] == 1
        for place, answer in enumerate(answers):
            assert answer.status_code == (200 if payloads[place % 2] == won["payload"] else 409)


def test_prompts_are_added_once_and_answers_are_all_different(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "labels.sqlite", clock=clock)
    talk = [{"role": "user", "content": "hi"}]
    assert store.add_prompts(["a", "b", "a", talk]) == 3
    assert store.add_prompts(["b", talk, "c"]) == 1
    assert store.unanswered() == [(1, "a"), (2, "b"), (3, talk), (4, "c")]
    with pytest.raises(ValueError, match="at least 2 answers, all different, got 2"):
        store.add_answers(1, [Answer("x", "m", 1), Answer("x", "n", 2)])
    store.add_answers(1, [Answer("x", "m", 1), Answer("y", "n", 2)])
    with pytest.raises(ValueError, match="has answers already"):
        store.add_answers(1, [Answer("z", "m", 1), Answer("w", "n", 2)])
    assert [identity for identity, _ in store.unanswered()] == [2, 3, 4]
    ann = store.sign_in("Ann").id
    with pytest.raises(ApiError) as raised:  # its answers are not there yet
        store.task(ann, 3)
    assert raised.value.status == 404
    store.close()


def test_names_that_differ_in_case_or_spaces_are_one_labeler(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "labels.sqlite", clock=clock)
    first = store.sign_in("Jörg  Groß")
    assert store.sign_in(" jo\u0308rg GROSS ") == first == store.sign_in("JÖRG Groß")
    assert first.name == "Jörg Groß"
    assert store.sign_in("Jorg Gross").id != first.id
    store.close()
