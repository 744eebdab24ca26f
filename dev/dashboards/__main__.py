"""`make dashboards`: write the dashboards' files anew."""

from __future__ import annotations

from dev.dashboards import ALL, FOLDER, path_of, text_of


def main() -> None:
    """One file for each; what is no dashboard any more is removed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = {path_of(dashboard): text_of(dashboard) for dashboard in ALL}
    for path in set(FOLDER.glob("*.json")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(f"dashboards: {path.relative_to(FOLDER.parents[2])}")


if __name__ == "__main__":
    main()
