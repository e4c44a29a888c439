// What a dashboard of ours may be, in the types of Grafana's own package. A test writes each dashboard below these lines as
// `checked<…>(…)`, and the TypeScript compiler refuses what the types do not have. The package has the version of the image
// in docker-compose.yaml.
import type { Dashboard, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

// A type as JSON has it: an enumeration is the text or number of its members.
type Json<T> = T extends string
    ? `${T}`
    : T extends (infer Item)[]
      ? Json<Item>[]
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

// A panel whose options and settings of fields are those of its kind.
type PanelOf<Kind extends string, Options, Custom> = Json<
    Omit<Panel, "type" | "options" | "fieldConfig"> & {
        type: Kind;
        options: Options;
        fieldConfig: Omit<FieldConfigSource, "defaults"> & {
            defaults: Omit<FieldConfigSource["defaults"], "custom"> & { custom?: Custom };
        };
    }
>;

export type StatPanel = PanelOf<"stat", StatOptions, never>;
export type TablePanel = PanelOf<"table", table.Options, table.FieldConfig>;
export type TimeSeriesPanel = PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>;
export type Row = Json<RowPanel>;
// A dashboard without its panels, which are checked one by one.
export type Frame = Json<Omit<Dashboard, "panels">>;

function checked<T>(_value: T): void {}
