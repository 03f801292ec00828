"""Writes sheets for tests: no package of the project does."""

import io
import zipfile
from string import ascii_uppercase
from typing import Any


def write_xlsx(rows: list[list[Any]], last_cell: str = "") -> bytes:
    """Write a sheet as Excel does: shared strings, and numbers without a type; `last_cell` holds a 1."""
    strings: list[str] = []

    def cell(value: Any, column: int, row: int) -> str:
        place = f"{chr(ord('A') + column)}{row}"
        if not isinstance(value, str):
            return f'<c r="{place}"><v>{value}</v></c>'
        strings.append(value)
        return f'<c r="{place}" t="s"><v>{len(strings) - 1}</v></c>'

    lines = [
        f'<row r="{n}">' + "".join(cell(value, column, n) for column, value in enumerate(row)) + "</row>"
        for n, row in enumerate(rows, 1)
    ]
    if last_cell:
        lines.append(f'<row r="{last_cell.lstrip(ascii_uppercase)}"><c r="{last_cell}"><v>1</v></c></row>')
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packages = "http://schemas.openxmlformats.org/package/2006"
    shared = "".join(f"<si><t>{string}</t></si>" for string in strings)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{packages}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{packages}/relationships"><Relationship Id="rId1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{packages}/relationships">'
        f'<Relationship Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{office}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join(lines)}</sheetData>'
        "</worksheet>",
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">{shared}</sst>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + content)
    return file.getvalue()
