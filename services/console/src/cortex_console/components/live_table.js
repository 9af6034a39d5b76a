import * as Vue from "vue";

// A table whose cells stay what they are while the page is drawn again: NiceGUI makes new components of slots at each update of
// anything on the page, which closes open menus and loses the focus. Here one component is made of each template, once.
const made = new Map();
const cellOf = (template) => {
  if (!made.has(template)) made.set(template, Vue.markRaw({ props: ["props"], template }));
  return made.get(template);
};
export default {
  template: `
    <q-table ref="qRef" :columns="columns">
      <template v-for="(template, slot) in cells" v-slot:[slot]="slotProps">
        <component :is="cellOf(template)" :props="slotProps || {}" />
      </template>
    </q-table>
  `,
  props: { columns: Array, cells: Object },
  methods: { cellOf },
};
