"""How a report looks: light and dark, on a desk, a phone and on paper."""

STYLE = """
:root {
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c1e22; --soft: #5d636b; --rule: #e2e3df; --tint: #f1f1ed;
  --accent: #22619c; --s0: #2662a8; --s1: #c0502a; --s2: #3a7f54; --s3: #86509c; --s4: #9a7612; --s5: #3f7f92;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1a1d22; --ink: #e4e6e8; --soft: #9aa1aa; --rule: #2b2f36; --tint: #20242a;
    --accent: #86b8e8; --s0: #74a9e6; --s1: #e8875e; --s2: #78bd93; --s3: #c397d8; --s4: #d3b04c; --s5: #82bccd;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 56px; }
.eyebrow { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .06em; text-transform: uppercase; }
h1 { margin: 6px 0 12px; font-size: clamp(28px, 5vw, 42px); line-height: 1.15; font-weight: 650;
  letter-spacing: -.015em;
  overflow-wrap: anywhere; }
.lede { margin: 0 0 24px; max-width: 68ch; font-size: 18px; color: var(--ink); }
h2 { margin: 0 0 6px; font-size: 23px; font-weight: 640; letter-spacing: -.008em; }
h3 { margin: 30px 0 8px; font-size: 16px; font-weight: 640; }
p { max-width: 72ch; margin: 0 0 14px; }
a { color: var(--accent); text-underline-offset: 3px; }
section { padding: 40px 0 20px; border-top: 1px solid var(--rule); scroll-margin-top: 12px; }
nav { margin: 26px 0 34px; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0; padding: 0; list-style: none;
  font-size: 14.5px; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.figures { display: flex; flex-wrap: wrap; gap: 1px;
  margin: 0 0 26px;
  background: var(--rule); border: 1px solid var(--rule); border-radius: 8px; overflow: hidden; }
.figures div { flex: 1 1 132px; background: var(--card); padding: 13px 16px 14px; }
.figures dt { color: var(--soft); font-size: 13px; }
.figures dd { margin: 2px 0 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
figure { margin: 18px 0 28px; }
figcaption { margin-top: 10px; max-width: 78ch; color: var(--soft); font-size: 14px; }
figcaption p { margin: 0 0 4px; }
code { font: 12.8px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.command { display: block; margin-top: 6px; padding: 7px 11px; background: var(--tint); border-radius: 6px;
  color: var(--ink);
  white-space: pre-wrap; overflow-wrap: anywhere; }
.command::before { content: "$ "; color: var(--soft); }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
table { border-collapse: collapse; font-size: 14.5px; }
.data { min-width: min(100%, 520px); }
.data th, .data td { padding: 7px 18px 7px 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
.data thead th { color: var(--soft); font-weight: 500; font-size: 13.5px; vertical-align: bottom; }
.data tbody th { font-weight: 500; white-space: nowrap; }
.data thead th.number { white-space: normal; max-width: 15ch; }
.data td { font-variant-numeric: tabular-nums; }
.data .number { text-align: right; white-space: nowrap; }
.data tr.quiet th, .data tr.quiet td { color: var(--soft); font-weight: 400; }
.data code { overflow-wrap: anywhere; }
.pictures th, .pictures td { padding: 0 3px 3px 0; font-weight: 500; text-align: left; vertical-align: top; }
.pictures thead th { padding-bottom: 6px; color: var(--soft); font-size: 12.5px; font-weight: 450;
  vertical-align: bottom;
  line-height: 1.3; }
.pictures thead tr.blocks th { color: var(--ink); font-size: 13.5px; font-weight: 560; }
.pictures tbody th { position: sticky; left: 0; z-index: 1; padding-right: 12px; background: var(--paper);
  font-size: 13.5px;
  vertical-align: middle; max-width: 130px; overflow-wrap: break-word; min-width: 56px; }
.pictures.large small { max-width: 112px; }
.pictures tbody th:empty { min-width: 0; padding: 0; }
.pictures .gap { padding-left: 16px; }
.pictures img { display: block; width: 88px; height: auto; border-radius: 3px; background: var(--tint); }
.pictures.large img { width: 112px; }
.pictures small { display: block; max-width: 88px; padding: 2px 0 4px; color: var(--soft);
  font-size: 11.5px; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
  gap: 22px 36px; margin: 18px 0 8px; }
.charts figure { margin: 0; min-width: 0; }
.charts h3 { margin: 0 0 2px; font-size: 14.5px; font-weight: 580; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif !important; }
svg image { image-rendering: pixelated; }
.missing { padding: 12px 16px; border-left: 3px solid var(--rule); color: var(--soft); }
.missing .command { max-width: max-content; }
.warning { color: var(--s1); }
details { margin: 14px 0; } summary { cursor: pointer; color: var(--accent); font-size: 14.5px; }
pre { overflow-x: auto; padding: 12px 14px; background: var(--tint); border-radius: 6px; }
footer { padding-top: 18px; padding-bottom: 56px; color: var(--soft); font-size: 13.5px;
  border-top: 1px solid var(--rule); }
@media (max-width: 640px) {
  header, main, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 30px; }
  .lede { font-size: 16.5px; }
  section { padding-top: 28px; }
  .figures dd { font-size: 18px; }
  .data tbody th { white-space: normal; min-width: 104px; overflow-wrap: break-word; }
  .data th, .data td { padding-right: 14px; }
  .mono tr, .mono th, .mono td { display: block; }
  .data.mono th { padding: 8px 0 0; border: 0; }
  .data.mono td { padding: 0 0 8px; }
  .pictures img { width: 66px; }
  .pictures small { max-width: 66px; }
  .pictures.large img { width: 92px; }
  .pictures.large small { max-width: 92px; }
  .pictures tbody th { max-width: 84px; padding-right: 8px; }
}
@media print {
  @page { margin: 14mm; }
  html { color-scheme: light; }
  body { background: #fff; font-size: 10pt; }
  header, main, footer { max-width: none; padding: 0; }
  nav { display: none; }
  section { padding: 14pt 0 4pt; }
  figure, .charts figure, tr, .figures { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll, .command { overflow: visible; white-space: pre-wrap; }
  .charts { grid-template-columns: 1fr 1fr; gap: 10pt 18pt; }
  .pictures img, .pictures.large img { width: 17mm; }
  .pictures small, .pictures.large small { max-width: 17mm; }
  .pictures .gap { padding-left: 8pt; }
  .data { min-width: 0; width: 100%; font-size: 8.5pt; }
  .data th, .data td { padding: 4pt 8pt 4pt 0; }
  .data tbody th { white-space: normal; }
  .data code { font-size: 7pt; }
  .pictures tbody th { position: static; background: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
